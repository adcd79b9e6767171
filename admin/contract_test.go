package admin_test

import (
	"bytes"
	"mime"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tidegate/tidegate/admin"
)

// contract is admin/openapi.json, which every answer in these tests is held against.
var contract = sync.OnceValues(func() (map[string]any, error) {
	body, err := os.ReadFile(documentPath)
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return document.(map[string]any), nil
})

// checkContract fails the test when the answer is not one that the document names
// for its operation. Answers to what is no operation are not looked at.
func (w *world) checkContract(a answer) {
	w.Helper()
	document, err := contract()
	if err != nil {
		w.Fatal(err)
	}
	method := strings.ToLower(a.Request.Method)
	path, operation := operationOf(document, method, a.Request.URL)
	if operation == nil {
		return
	}
	at := "/paths/" + pointer(path) + "/" + method + "/responses/" + strconv.Itoa(a.StatusCode)
	response, ok := operation["responses"].(map[string]any)[strconv.Itoa(a.StatusCode)].(map[string]any)
	if !ok {
		w.Errorf("%s %s answered %d, which admin/openapi.json does not say", method, path, a.StatusCode)
		return
	}
	kinds, _ := response["content"].(map[string]any)
	if len(kinds) == 0 {
		if a.text != "" {
			w.Errorf("%s %s: a body where there should be none: %s", method, path, a.text)
		}
		return
	}
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if kinds[kind] == nil {
		w.Errorf("%s %s answered %d with %s, which admin/openapi.json does not say", method, path, a.StatusCode, kind)
		return
	}
	if !strings.HasSuffix(kind, "json") {
		return
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("openapi.json", document); err != nil {
		w.Fatal(err)
	}
	schema, err := compiler.Compile("openapi.json#" + at + "/content/" + pointer(kind) + "/schema")
	if err != nil {
		w.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(a.text))
	if err != nil {
		w.Errorf("%s %s: %v", method, path, err)
	} else if err := schema.Validate(value); err != nil {
		w.Errorf("%s %s answered %d with something else than admin/openapi.json says: %v\n%s", method, path, a.StatusCode, err, a.text)
	}
}

func operationOf(document map[string]any, method string, u *url.URL) (string, map[string]any) {
	for _, r := range admin.Routes() {
		pattern := regexp.MustCompile(strings.NewReplacer(`\{port\}`, `[^/]+`, `\{user\}`, `[^/]+`).Replace("^" + regexp.QuoteMeta(r.Path) + "$"))
		if strings.EqualFold(r.Method, method) && pattern.MatchString(u.EscapedPath()) {
			paths := document["paths"].(map[string]any)
			operation, _ := paths[r.Path].(map[string]any)[method].(map[string]any)
			return r.Path, operation
		}
	}
	return "", nil
}

// pointer escapes a name for a JSON pointer in a URL fragment.
func pointer(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

// Package contract holds the answers of an API against its committed description, in tests.
package contract

import (
	"bytes"
	"flag"
	"mime"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the API's description anew")

// Committed fails the test when the file is not the description as it is made now; with -update
// it writes it.
func Committed(t *testing.T, file string, document func() ([]byte, error)) {
	t.Helper()
	now, err := document()
	if err == nil && *update {
		err = os.WriteFile(file, now, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now, committed) {
		t.Errorf("%s is not what the routes say: run go generate in its folder", file)
	}
}

// Contract is a description.
type Contract map[string]any

// Read reads a description.
func Read(file string) (c Contract, err error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return document.(map[string]any), nil
}

// Check fails the test when the answer is not one that the description names for its operation.
// Answers to what is no operation are not looked at.
func (c Contract) Check(t testing.TB, r *http.Response, text string) {
	t.Helper()
	method, status := strings.ToLower(r.Request.Method), strconv.Itoa(r.StatusCode)
	path, operation := c.operation(method, r.Request.URL)
	if operation == nil {
		return
	}
	response, ok := operation["responses"].(map[string]any)[status].(map[string]any)
	if !ok {
		t.Errorf("%s %s answered %s, which the API's description does not say: %s", method, path, status, text)
		return
	}
	kinds, _ := response["content"].(map[string]any)
	if len(kinds) == 0 {
		if text != "" {
			t.Errorf("%s %s answered %s with a body where there should be none: %s", method, path, status, text)
		}
		return
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kinds[kind] == nil {
		t.Errorf("%s %s answered %s with %s, which the API's description does not say", method, path, status, kind)
		return
	}
	if !strings.HasSuffix(kind, "json") {
		return
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("openapi.json", map[string]any(c)); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("openapi.json#/paths/" + pointer(path) + "/" + method + "/responses/" + status + "/content/" + pointer(kind) + "/schema")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		t.Errorf("%s %s answered %s with something else than the API's description says: %v\n%s", method, path, status, err, text)
	}
}

var parameter = regexp.MustCompile(`\\\{\w+\\\}`)

func (c Contract) operation(method string, u *url.URL) (string, map[string]any) {
	for path, operations := range c["paths"].(map[string]any) {
		pattern := regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "$")
		if operation, ok := operations.(map[string]any)[method].(map[string]any); ok && pattern.MatchString(u.EscapedPath()) {
			return path, operation
		}
	}
	return "", nil
}

// pointer escapes a name for a JSON pointer in a URL fragment.
func pointer(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

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
	"slices"
	"strconv"
	"strings"
	"sync"
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
type Contract struct {
	Document map[string]any

	operations []operation

	mu       sync.Mutex
	compiler *jsonschema.Compiler // it keeps what it has compiled
}

type operation struct {
	method, path string
	pattern      *regexp.Regexp // of the paths of requests
	responses    map[string]any
}

// Read reads a description.
func Read(file string) (*Contract, error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	c := &Contract{Document: document.(map[string]any), compiler: jsonschema.NewCompiler()}
	c.compiler.AssertFormat()
	for path, methods := range c.Document["paths"].(map[string]any) {
		pattern := regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "$")
		for method, of := range methods.(map[string]any) {
			if of, ok := of.(map[string]any); ok {
				responses, _ := of["responses"].(map[string]any)
				c.operations = append(c.operations, operation{method, path, pattern, responses})
			}
		}
	}
	return c, c.compiler.AddResource("openapi.json", document)
}

// Check fails the test when the answer is not one that the description names for its operation.
// Answers to what is no operation are not looked at.
func (c *Contract) Check(t testing.TB, r *http.Response, text string) {
	t.Helper()
	method, status := strings.ToLower(r.Request.Method), strconv.Itoa(r.StatusCode)
	at := slices.IndexFunc(c.operations, func(o operation) bool {
		return o.method == method && o.pattern.MatchString(r.Request.URL.EscapedPath())
	})
	if at < 0 {
		return
	}
	path := c.operations[at].path
	response, ok := c.operations[at].responses[status].(map[string]any)
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
	c.mu.Lock()
	schema, err := c.compiler.Compile("openapi.json#/paths/" + pointer(path) + "/" + method + "/responses/" + status + "/content/" + pointer(kind) + "/schema")
	c.mu.Unlock()
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

// pointer escapes a name for a JSON pointer in a URL fragment.
func pointer(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

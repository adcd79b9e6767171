package receipt_test

import (
	"bytes"
	"image"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/receipttest"
)

func (w *world) auth() *identity.Authenticator { return &identity.Authenticator{Tokens: w.tokens} }

func TestBadUploads(t *testing.T) {
	w := start(t, open(), func(c *receipt.Config) { c.MaxBytes, c.MaxPixels = 20_000, 10_000 })
	small := receipttest.JPEG(t, image.NewGray(image.Rect(0, 0, 50, 50)))
	multi := func(name string, data []byte) func() (string, io.Reader) {
		return func() (string, io.Reader) {
			body, contentType := form(t, name, data)
			return contentType, bytes.NewReader(body)
		}
	}
	for name, c := range map[string]struct {
		body   func() (contentType string, body io.Reader)
		status int
		kind   string
	}{
		"a picture":      {multi("image", small), 200, ""},
		"in a part file": {multi("file", small), 200, ""},
		"no form":        {func() (string, io.Reader) { return "image/jpeg", bytes.NewReader(small) }, 415, "not-multipart"},
		"JSON":           {func() (string, io.Reader) { return "application/json", strings.NewReader("{}") }, 415, "not-multipart"},
		"no boundary":    {func() (string, io.Reader) { return "multipart/form-data", bytes.NewReader(small) }, 415, "not-multipart"},
		"an empty form":  {func() (string, io.Reader) { return "multipart/form-data; boundary=x", strings.NewReader("--x--\r\n") }, 400, "no-image"},
		"another part":   {multi("receipt", small), 400, "no-image"},
		"an empty part":  {multi("image", nil), 400, "no-image"},
		"a form cut short": {func() (string, io.Reader) {
			return "multipart/form-data; boundary=x", strings.NewReader("--x\r\nContent-Disposition: form-data; name=image\r\n\r\nabc")
		}, 400, "malformed-form"},
		"no form at all":     {func() (string, io.Reader) { return "multipart/form-data; boundary=x", strings.NewReader("hello") }, 400, "no-image"},
		"text":               {multi("image", []byte("TOTAL 9.00")), 415, "unsupported-image"},
		"half a picture":     {multi("image", small[:len(small)/2]), 422, "damaged-image"},
		"too many pixels":    {multi("image", receipttest.PNG(t, image.NewGray(image.Rect(0, 0, 101, 100)))), 413, "too-many-pixels"},
		"too many bytes":     {multi("image", make([]byte, 20_001)), 413, "too-many-bytes"},
		"far too many bytes": {multi("image", make([]byte, 200_000)), 413, "body-too-large"},
		"of an unknown size": {func() (string, io.Reader) {
			b, ct := form(t, "image", make([]byte, 200_000))
			return ct, io.MultiReader(bytes.NewReader(b))
		}, 413, "too-many-bytes"},
		"a large other field": {func() (string, io.Reader) {
			b, ct := form(t, "note", make([]byte, 200_000))
			return ct, io.MultiReader(bytes.NewReader(b))
		}, 413, "too-many-bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			contentType, body := c.body()
			r := w.post("/api/v1/ports/p1/scan-receipt", w.token, contentType, body)
			if r.status != c.status || c.kind != "" && (!strings.HasSuffix(r.Type, "#"+c.kind) || r.Title == "" || r.Detail == "" || r.header.Get("Content-Type") != "application/problem+json") {
				t.Errorf("%d %s, want %d %s", r.status, r.text, c.status, c.kind)
			}
		})
	}
}

func TestTheFirstPictureOfAFormCounts(t *testing.T) {
	w := start(t, open(), nil)
	var b bytes.Buffer
	f := multipart.NewWriter(&b)
	if err := f.WriteField("note", "lunch"); err != nil {
		t.Fatal(err)
	}
	part, _ := f.CreateFormField("image")
	_, _ = part.Write(receipttest.PNG(t, image.NewGray(image.Rect(0, 0, 9, 9))))
	f.Close()
	if r := w.post("/api/v1/ports/p1/scan-receipt", w.token, f.FormDataContentType(), &b); r.Source != "ai" {
		t.Errorf("%d %s", r.status, r.text)
	}
}

func TestPermissions(t *testing.T) {
	w := start(t, open(), nil)
	body, contentType := form(t, "image", receipttest.JPEG(t, image.NewGray(image.Rect(0, 0, 8, 8))))
	one := w.newToken([]string{"other", receipt.Permission}, []string{"p1"})
	for name, c := range map[string]struct {
		token, port string
		status      int
		kind        string
	}{
		"nobody":                 {"", "p1", 401, "unauthenticated"},
		"a wrong token":          {"tg_wrong", "p1", 401, "invalid-token"},
		"without the permission": {w.newToken([]string{"admin.manage_settings"}, nil), "p1", 403, "missing-permission"},
		"for another port":       {one, "p2", 403, "port-not-allowed"},
		"for this port":          {one, "p1", 200, ""},
		"for every port":         {w.token, "p2", 200, ""},
		"no legal port":          {w.token, "p.1", 400, "invalid-port"},
		"a long port":            {w.token, strings.Repeat("p", 65), 400, "invalid-port"},
	} {
		r := w.post("/api/v1/ports/"+c.port+"/scan-receipt", c.token, contentType, bytes.NewReader(body))
		if r.status != c.status || c.kind != "" && !strings.HasSuffix(r.Type, "#"+c.kind) {
			t.Errorf("%s: %d %s, want %d %s", name, r.status, r.text, c.status, c.kind)
		}
	}
	if n := len(w.book.all()); n != 2 {
		t.Errorf("%d readings were recorded, want 2", n)
	}
}

func TestOtherAddresses(t *testing.T) {
	w := start(t, open(), nil)
	for _, c := range []struct {
		method, path string
		token        bool
		status       int
		kind         string
	}{
		{"GET", "/api/v1/ports/p1/scan-receipt", true, 405, "wrong-method"},
		{"GET", "/api/v1/ports/p1/scan-receipt", false, 401, "unauthenticated"},
		{"PUT", "/api/v1/ports/p1/scan-receipt", true, 405, "wrong-method"},
		{"GET", "/api/v1/elsewhere", true, 404, "unknown-address"},
		{"GET", "/api/v1/elsewhere", false, 401, "unauthenticated"},
		{"GET", "/api/v1/session", false, 401, "unauthenticated"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, w.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token {
			req.Header.Set("Authorization", "Bearer "+w.token)
		}
		if r := w.do(req); r.status != c.status || !strings.HasSuffix(r.Type, "#"+c.kind) {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.status, r.text)
		}
	}
}

func TestNoOtherSiteMaySend(t *testing.T) {
	w := start(t, open(), nil)
	body, contentType := form(t, "image", receipttest.JPEG(t, image.NewGray(image.Rect(0, 0, 8, 8))))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/api/v1/ports/p1/scan-receipt", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if r := w.do(req); r.status != 403 || !strings.HasSuffix(r.Type, "#cross-origin") {
		t.Errorf("%d %s", r.status, r.text)
	}
}

// Each problem type leads to a heading of docs/receipt.md.
func TestProblemsAreDocumented(t *testing.T) {
	docs, err := os.ReadFile("../docs/receipt.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range []string{"upload.go", "problem.go", "scan.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`problem\(http\.\w+, "([a-z-]+)"`).FindAllSubmatch(source, -1) {
			found++
			if !bytes.Contains(docs, append([]byte("\n### "), append(m[1], '\n')...)) {
				t.Errorf("docs/receipt.md says nothing of %s", m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d problems were found in the source", found)
	}
}

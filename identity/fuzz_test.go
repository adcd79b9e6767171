package identity

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func FuzzParseToken(f *testing.F) {
	shown, _, _ := mintToken()
	for _, seed := range []string{shown, shown[:20], "tg__", "tg_" + strings.Repeat("a", 73), ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, hash, ok := parseToken(s)
		if !ok {
			if id != "" || hash != [32]byte{} {
				t.Errorf("%q is refused and still yields %q", s, id)
			}
			return
		}
		if body := s[:len(s)-checksumChars]; len(id) != tokenIDChars || !strings.HasPrefix(s, tokenPrefix+id+"_") || checksum(body) != s[len(body):] {
			t.Errorf("%q yields %q", s, id)
		}
	})
}

func FuzzBearer(f *testing.F) {
	for _, seed := range []string{"Bearer x.y.z", "bearer  tg_", "Bearer", "Basic Zm9v", "Bearer a b", "Bearer \x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{header}
		token, given, err := bearer(r)
		if err == nil && given && (!isToken(token) || len(token) > maxBearerChars) || !given && token != "" {
			t.Errorf("%q yields %q", header, token)
		}
	})
}

// FuzzSessionCookie looks for a value that opens without having been sealed.
func FuzzSessionCookie(f *testing.F) {
	s, err := NewSessions(SessionConfig{Key: make([]byte, KeyBytes)})
	if err != nil {
		f.Fatal(err)
	}
	// The same in every process that the fuzzer starts, and not yet over.
	content := session{ID: "1", Caller: Caller{Subject: "ada"}, Started: time.Unix(1<<33, 0), Seen: time.Unix(1<<33, 0)}
	payload, err := json.Marshal(content)
	if err != nil {
		f.Fatal(err)
	}
	good := s.seal.close(payload)
	for _, seed := range []string{good, good[:len(good)-1], good + "=", ".", "", "e30.", strings.Replace(good, ".", "", 1)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if _, ok := s.parse(value); ok && value != good {
			t.Errorf("%q opens", value)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Cookie"] = []string{CookieName + "=" + value}
		if _, err := s.read(r); err == nil && !strings.Contains(value, good) {
			t.Errorf("%q signs in", value)
		}
	})
}

// FuzzLoginCode looks for a code that works without having been minted with the key.
func FuzzLoginCode(f *testing.F) {
	mints := func(key []byte) links {
		s, err := NewSessions(SessionConfig{Key: key})
		if err != nil {
			f.Fatal(err)
		}
		l, err := newLinks(s)
		if err != nil {
			f.Fatal(err)
		}
		return l
	}
	other := mints([]byte("another key, of 32 characters..."))
	code, _ := other.mint(time.Now())
	l := mints(make([]byte, KeyBytes))
	for _, seed := range []string{code, code[1:], strings.Repeat("A", 54), ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, code string) {
		if raw, err := decodeCode(code); err == nil && l.made(raw) {
			t.Errorf("%q works", code)
		}
	})
}

// FuzzLocalPath looks for a redirect that leaves this server.
func FuzzLocalPath(f *testing.F) {
	for _, seed := range []string{"/", "//evil.example", "/\\evil.example", "/.//evil.example", "https://evil.example", "/a?b=c#d", "/\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, next string) {
		w := httptest.NewRecorder()
		http.Redirect(w, httptest.NewRequest("GET", "http://127.0.0.1:8080/login", nil), localPath(next), http.StatusSeeOther)
		to := w.Header().Get("Location")
		if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") {
			t.Errorf("next=%q leads to %q", next, to)
		}
	})
}

package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A body that does not say its length ends at the limit, too.
func TestBodyWithoutEnd(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/openai/v1/chat/completions", io.NopCloser(zeros{}))
	var large *http.MaxBytesError
	if err := readBody(httptest.NewRecorder(), r, 1<<10); !errors.As(err, &large) || faultOf(err).kind != tooLarge {
		t.Errorf("a body that does not end: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

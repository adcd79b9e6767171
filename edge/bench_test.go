package edge_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkCheck asks over HTTP from 64 goroutines; server and callers share the process.
func BenchmarkCheck(b *testing.B) {
	w := newWorld(b)
	w.setBudget("bench", 1<<40)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, _ := http.NewRequest(http.MethodPost, w.url+"/v1/ports/bench/check", strings.NewReader(`{"feature":"ocr","user_id":"u1","estimated_tokens":2000}`))
			req.Header.Set("Authorization", "Bearer "+w.all)
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("answered %d", resp.StatusCode)
				return
			}
		}
	})
}

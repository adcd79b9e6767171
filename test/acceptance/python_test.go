//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/testenv"
)

// TestPythonReadsRecordedReplies gives the Python client recorded replies as the SDKs' objects.
func TestPythonReadsRecordedReplies(t *testing.T) {
	type reply struct {
		API  string `json:"api"`
		Body string `json:"body"`
	}
	var want []recording
	var in bytes.Buffer
	for _, file := range []string{"fixtures/provider_responses.jsonl", "fixtures/provider_responses_more.jsonl"} {
		for _, r := range recordings(t, sharedFile(t, file), recordedReplies[file]) {
			api := ""
			for end, name := range map[string]string{"/chat/completions": "openai", "/responses": "openai", "/embeddings": "openai", "/v1/messages": "anthropic", ":generateContent": "gemini"} {
				if path, _, _ := strings.Cut(r.URL, "?"); strings.HasSuffix(path, end) {
					api = name
				}
			}
			if api == "" || r.Expected.Usage == nil || !strings.HasPrefix(strings.TrimSpace(r.Response.Body), "{") {
				continue // of no SDK that it reads, or a stream
			}
			want = append(want, r)
			if err := json.NewEncoder(&in).Encode(reply{api, r.Response.Body}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(want) < 100 {
		t.Errorf("only %d replies to read", len(want))
	}
	cmd := exec.Command("python3", testenv.Must(filepath.Abs("../../clients/python/tests/read_replies.py")))
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH="+testenv.Must(filepath.Abs("../../clients/python")))
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) != len(want) {
		t.Fatalf("%d replies are read, want %d", len(lines), len(want))
	}
	names := []string{"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "reasoning_output_tokens"}
	for i, r := range want {
		var read map[string]any
		if err := json.Unmarshal(lines[i], &read); err != nil {
			t.Fatal(err)
		}
		got, expected := map[string]int64{}, map[string]int64{}
		for _, name := range names {
			got[name], expected[name] = int64(read[name].(float64)), r.Expected.Usage[name]
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.Name, diff)
		}
	}
}

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/testenv"
)

// TestMeterCommandReadsToTheEnd: a line that nobody can read is told, and ends nothing.
func TestMeterCommandReadsToTheEnd(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "replies.jsonl")
	lines := `{"name":"one","url":"https://proxy.example/v1/messages","response":{"body":{"model":"m","usage":{"input_tokens":1,"output_tokens":2}}}}
no JSON
{"name":"three","url":"https://proxy.example/ask","response":{"body":"hello"}}
{"name":"four","url":"https://proxy.example/ask","response":{"body_b64":"eyJtb2RlbCI6Im0iLCJ1c2FnZSI6eyJwcm9tcHRfdG9rZW5zIjoxLCJjb21wbGV0aW9uX3Rva2VucyI6Mn19"}}
{"name":"five","api":"messages","response":{"status":529,"body":"{}"}}
`
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.Binary(t, "cmd/tidegate"), "meter", file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Errorf("%v, want exit 0", err)
	}
	var got []string
	for line := range strings.Lines(string(stdout)) {
		_, measured, _ := strings.Cut(line, `"measured_by":`)
		measured, _, _ = strings.Cut(strings.Trim(measured, "}\n"), ",")
		got = append(got, measured)
	}
	if diff := cmp.Diff([]string{`"provider"`, `"none"`, `"none"`, `"provider"`, `null`}, got); diff != "" {
		t.Errorf("measured by, line by line: want (-), got (+):\n%s\n%s", diff, stdout)
	}
	if want := "5 replies: 2 measured by the provider, 0 partial, 0 estimated, 1 failed, 2 not read\n"; !strings.HasSuffix(stderr.String(), want) {
		t.Errorf("stderr is %q, want it to end with %q", stderr.String(), want)
	}
}

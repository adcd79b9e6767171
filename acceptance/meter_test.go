//go:build acceptance

package acceptance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/meter"
)

// providerReplies is shared data that must not enter the repository.
const providerReplies = "../../shared/fixtures/provider_responses.jsonl"

// TestMeterReadsRecordedReplies checks what `tidegate meter` prints against
// expectations that were computed apart from any Tidegate code.
func TestMeterReadsRecordedReplies(t *testing.T) {
	fixture, err := os.ReadFile(providerReplies)
	if err != nil {
		t.Fatalf("the recorded replies are needed to test against: %v", err)
	}
	type answer struct {
		Name       string           `json:"name"`
		Usage      map[string]int64 `json:"usage"`
		Model      *string          `json:"model"`
		ResponseID *string          `json:"response_id"`
		RequestID  *string          `json:"request_id"`
		MeasuredBy string           `json:"measured_by"`
	}
	var want []answer
	for line := range bytes.Lines(fixture) {
		var l struct {
			Name     string `json:"name"`
			Expected answer `json:"expected"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		a := l.Expected
		a.Name, a.MeasuredBy = l.Name, "provider"
		if a.Usage == nil {
			a.MeasuredBy = "estimate"
		}
		want = append(want, a)
	}

	var printed strings.Builder
	if err := meter.WriteReport(&printed, bytes.NewReader(fixture)); err != nil {
		t.Fatal(err)
	}
	var got []answer
	for lines := bufio.NewScanner(strings.NewReader(printed.String())); lines.Scan(); {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}

	if len(want) != 87 {
		t.Errorf("the fixture has %d replies, want 87", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("expected (-) against read (+):\n%s", diff)
	}
}

package typescript_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/testenv"
)

// The types have the fields that the edge describes, no more and no fewer.
func TestTypesAreTheContracts(t *testing.T) {
	t.Parallel()
	var document struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(testenv.Must(os.ReadFile("../../edge/openapi.json")), &document, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	source := testenv.Must(os.ReadFile("src/types.ts"))
	fields := map[string][]string{}
	field := regexp.MustCompile(`(?m)^  (\w+)\??:`)
	for _, m := range regexp.MustCompile(`(?s)export interface (\w+)(?: extends (\w+))? \{\n(.*?)\n\}`).FindAllSubmatch(source, -1) {
		own := slices.Clone(fields[string(m[2])])
		for _, f := range field.FindAllSubmatch(m[3], -1) {
			if name := string(f[1]); name != "error" && !slices.Contains(own, name) { // the client's own; a narrower type
				own = append(own, name)
			}
		}
		slices.Sort(own)
		fields[string(m[1])] = own
	}
	for name, schema := range map[string]string{"Usage": "Event", "Details": "Details", "Question": "CheckRequest", "ReserveQuestion": "ReserveRequest", "Allowed": "Verdict", "LimitVerdict": "LimitVerdict"} {
		var want []string
		for property := range document.Components.Schemas[schema].Properties {
			if property != "v" { // of the event: 1 if it is left out
				want = append(want, property)
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, fields[name]); diff != "" || len(want) == 0 {
			t.Errorf("%s and %s of edge/openapi.json (-want +got):\n%s", name, schema, diff)
		}
	}
}

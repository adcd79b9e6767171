package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	slowest  = 5
	slowTest = time.Second // a faster one is not worth a line
)

// event is one line of test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

type test struct{ pkg, name string }

// summary gathers events and prints as packages end.
type summary struct {
	out     io.Writer
	started time.Time
	output  map[test]*strings.Builder // of what has not passed; name "" is the package's own
	build   map[string]*strings.Builder
	took    map[test]time.Duration

	passed, failed int
	skipped        []test
	failedPackages []string
}

func newSummary(out io.Writer) *summary {
	return &summary{
		out: out, started: time.Now(),
		output: map[test]*strings.Builder{}, build: map[string]*strings.Builder{}, took: map[test]time.Duration{},
	}
}

func (s *summary) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(s.out, lines.Text()) // the go command's own complaints
			continue
		}
		s.event(e)
	}
	return lines.Err()
}

func (s *summary) event(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		appendTo(s.build, e.ImportPath, e.Output)
	case "output":
		if e.Test != "" || !strings.HasPrefix(e.Output, "FAIL") { // that is said when the package ends
			appendTo(s.output, id, e.Output)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
			return
		}
		s.endTest(id, e)
	}
}

func appendTo[K comparable](m map[K]*strings.Builder, key K, text string) {
	if m[key] == nil {
		m[key] = &strings.Builder{}
	}
	m[key].WriteString(text)
}

func (s *summary) endTest(id test, e event) {
	switch e.Action {
	case "pass":
		s.passed++
		delete(s.output, id)
	case "skip":
		s.skipped = append(s.skipped, id)
		delete(s.output, id)
	case "fail":
		s.failed++
	}
	if !strings.Contains(e.Test, "/") { // a test's time includes its subtests'
		s.took[id] = seconds(e.Elapsed)
	}
}

func (s *summary) endPackage(e event) {
	mark := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "-   "}[e.Action]
	if e.Action != "skip" { // no test files
		fmt.Fprintf(s.out, "%s %6.1fs  %s\n", mark, e.Elapsed, e.Package)
	}
	if e.Action == "fail" {
		s.failedPackages = append(s.failedPackages, e.Package)
		if b := s.build[e.FailedBuild]; b != nil {
			fmt.Fprint(s.out, indent(b.String()))
		}
		// What is left has failed, or was running when the binary ended.
		ids := slices.SortedFunc(maps.Keys(s.output), func(a, b test) int { return cmp.Compare(a.name, b.name) })
		for _, id := range ids {
			if id.pkg == e.Package {
				fmt.Fprint(s.out, indent(s.output[id].String()))
			}
		}
	}
	maps.DeleteFunc(s.output, func(id test, _ *strings.Builder) bool { return id.pkg == e.Package })
}

// close prints the totals and reports whether all is well.
func (s *summary) close() bool {
	ids := slices.SortedFunc(maps.Keys(s.took), func(a, b test) int { return cmp.Compare(s.took[b], s.took[a]) })
	var slow []string
	for _, id := range ids[:min(slowest, len(ids))] {
		if s.took[id] >= slowTest {
			slow = append(slow, fmt.Sprintf("%s %.1fs", id.name, s.took[id].Seconds()))
		}
	}
	if len(slow) > 0 {
		fmt.Fprintf(s.out, "slowest: %s\n", strings.Join(slow, ", "))
	}
	for _, id := range s.skipped {
		fmt.Fprintf(s.out, "skipped: %s in %s\n", id.name, id.pkg)
	}
	if len(s.failedPackages) > 0 {
		fmt.Fprintf(s.out, "failed: %s\n", strings.Join(s.failedPackages, " "))
	}
	fmt.Fprintf(s.out, "took %s\n", time.Since(s.started).Round(time.Second))
	// A package may fail with all its tests passed: a build, a leak, a crash.
	failed := max(s.failed, len(s.failedPackages))
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, failed, len(s.skipped))
	return failed == 0 && s.passed > 0
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

func indent(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}

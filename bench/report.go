package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report writes Markdown, one table a measurement.
type report struct {
	w    io.Writer
	runs int
}

func (r *report) title() {
	fmt.Fprintf(r.w, "# Measurements\n\n")
	r.line("Command: `go run ./bench --runs %d all` (`make bench`), %s. Medians of %d runs. Never a timed test: a figure here is no promise, the ratios are what to compare.", r.runs, time.Now().UTC().Format("2006-01-02 15:04 UTC"), r.runs)
	r.line("Machine: %s, %d cores, %s, %s; commit %s.", cpuModel(), runtime.NumCPU(), memory(), runtime.Version(), commit())
}

func (r *report) section(title, what string) {
	fmt.Fprintf(r.w, "\n## %s\n\n", title)
	r.line("%s", what)
}

func (r *report) line(format string, args ...any) { fmt.Fprintf(r.w, format+"\n\n", args...) }

func (r *report) table(header []string, rows [][]string) {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	put := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i == 0 {
				fmt.Fprintf(r.w, "| %s%s ", cell, pad)
			} else {
				fmt.Fprintf(r.w, "| %s%s ", pad, cell)
			}
		}
		fmt.Fprintln(r.w, "|")
	}
	put(header)
	rule := make([]string, len(header))
	for i := range rule {
		rule[i] = strings.Repeat("-", width[i])
	}
	put(rule)
	for _, row := range rows {
		put(row)
	}
	fmt.Fprintln(r.w)
}

// median is what a measurement is worth.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Clone(values)
	slices.Sort(s)
	return s[len(s)/2]
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func thousands(f float64) string { return fmt.Sprintf("%.1fk", f/1000) }

func micros(d time.Duration) string { return fmt.Sprintf("%.0f µs", float64(d)/1000) }

func times(f float64) string { return fmt.Sprintf("%.2f ×", f) }

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, " \t:\n")
		}
	}
	return runtime.GOARCH
}

func memory() string {
	info, _ := os.ReadFile("/proc/meminfo")
	var kib int64
	if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &kib); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%d GiB", kib>>20)
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
)

type topCmd struct {
	HTTP  []string      `help:"Where the processes serve /metrics." name:"http" default:"http://127.0.0.1:8080" env:"TIDEGATE_TOP_HTTP" placeholder:"URL,…"`
	Every time.Duration `help:"How often to look." default:"2s"`
	Once  bool          `help:"Look twice, print that and exit; so it is where the output is no terminal."`
}

const maxMetrics = 8 << 20 // bytes that are read of each process

// Run shows what the processes' metrics say until ctx ends.
func (c *topCmd) Run(ctx context.Context) error {
	if c.Every < 100*time.Millisecond {
		return fmt.Errorf("--every is %s: must be at least 100ms", c.Every)
	}
	live := colour && !c.Once
	var before *seen
	for {
		now, err := c.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !live:
			return err
		case err != nil:
			fmt.Print("\033[H\033[2J", paint(bad, err.Error()), "\n")
		case before != nil:
			var frame strings.Builder
			now.draw(&frame, before)
			if !live {
				_, err := io.WriteString(os.Stdout, frame.String())
				return err
			}
			fmt.Print("\033[H\033[2J", frame.String(), paint(faint, "\nevery "+c.Every.String()+"; Ctrl-C ends it"), "\n")
		}
		if err == nil {
			before = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.Every):
		}
	}
}

// seen are the samples of all processes at a time.
type seen struct {
	at        time.Time
	processes int
	samples   map[string][]sample
}

type sample struct {
	labels map[string]string
	value  float64
}

func (c *topCmd) look(ctx context.Context) (*seen, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all := make([]map[string]*dto.MetricFamily, len(c.HTTP))
	var group errgroup.Group
	for i, at := range c.HTTP {
		group.Go(func() (err error) {
			all[i], err = readMetrics(ctx, at)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	s := &seen{at: time.Now(), processes: len(all), samples: map[string][]sample{}}
	for _, families := range all {
		for name, f := range families {
			for _, m := range f.GetMetric() {
				one := sample{labels: map[string]string{}, value: m.GetCounter().GetValue() + m.GetGauge().GetValue()}
				for _, l := range m.GetLabel() {
					one.labels[l.GetName()] = l.GetValue()
				}
				s.samples[name] = append(s.samples[name], one)
			}
		}
	}
	return s, nil
}

func readMetrics(ctx context.Context, at string) (map[string]*dto.MetricFamily, error) {
	address, err := url.JoinPath(at, "metrics")
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w", at, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w", at, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w\n  is the system running (tidegate run)? is --http right?", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, resp.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(resp.Body, maxMetrics))
	if err != nil {
		return nil, fmt.Errorf("%s has no metrics: %w", address, err)
	}
	return families, nil
}

// sum adds up the samples of a metric whose label has one of the values; "": all.
func (s *seen) sum(name, label string, values ...string) (total float64) {
	for _, one := range s.samples[name] {
		if label == "" || slices.Contains(values, one.labels[label]) {
			total += one.value
		}
	}
	return total
}

// most is the largest sample of a metric, by the values of a label.
func (s *seen) most(name, label string) map[string]float64 {
	most := map[string]float64{}
	for _, one := range s.samples[name] {
		of := one.labels[label]
		most[of] = max(most[of], one.value)
	}
	return most
}

func (s *seen) draw(w io.Writer, before *seen) {
	seconds := s.at.Sub(before.at).Seconds()
	rate := func(name, label string, values ...string) string {
		return strconv.FormatFloat(max(0, s.sum(name, label, values...)-before.sum(name, label, values...))/seconds, 'f', 1, 64) + "/s"
	}
	fmt.Fprintf(w, "%s  %s  processes: %d\n\n", paint(bold, "tidegate top"), when(s.at), s.processes)
	waiting := s.most("tidegate_backlog_messages", "")[""]
	backlog := fmt.Sprintf("%s messages, the oldest %s old", count(int64(waiting)), age(s.most("tidegate_backlog_oldest_seconds", "")[""]))
	if waiting == 0 {
		backlog = paint(good, "nothing waits")
	}
	alerts := paint(good, "none waits")
	if n := s.most("tidegate_alert_deliveries_waiting", "receiver"); len(n) > 0 {
		total := 0.0
		for _, of := range n {
			total += of
		}
		if total > 0 {
			alerts = paint(warn, count(int64(total))+" on their way to receivers")
		}
	}
	for _, line := range [][2]string{
		{"booked", rate("tidegate_events_booked_total", "") + ", quarantined " + rate("tidegate_events_quarantined_total", "")},
		{"backlog", backlog},
		{"checks", rate("tidegate_gate_answers_total", "") + ", refused by a cap " + rate("tidegate_refusals_total", "question", "check")},
		{"reservations", rate("tidegate_reservations_total", "outcome", "held", "held_less") + ", refused " + rate("tidegate_reservations_total", "outcome", "refused") + ", not reported " + rate("tidegate_holds_unsettled_total", "")},
		{"alerts", alerts},
	} {
		fmt.Fprintf(w, "  %-13s %s\n", line[0], line[1])
	}
	fmt.Fprintln(w)
	s.drawPorts(w)
}

// drawPorts shows the ports that are nearest to their hard cap.
func (s *seen) drawPorts(w io.Writer) {
	used, held, hard := s.most("tidegate_top_port_used_tokens", "port"), s.most("tidegate_top_port_held_tokens", "port"), s.most("tidegate_top_port_hard_cap_tokens", "port")
	ports := slices.Collect(maps.Keys(hard))
	share := func(port string) float64 { return (used[port] + held[port]) / hard[port] }
	slices.SortFunc(ports, func(a, b string) int { return cmp.Or(cmp.Compare(share(b), share(a)), cmp.Compare(a, b)) })
	var rows [][]string
	for _, port := range ports[:min(len(ports), 20)] {
		style := good
		switch {
		case share(port) >= 1:
			style = bad
		case share(port) >= 0.8:
			style = warn
		}
		rows = append(rows, []string{port, paint(style, bar(int64(used[port]+held[port]), int64(hard[port]))), fmt.Sprintf("%.0f%%", 100*share(port)), count(int64(used[port])), count(int64(held[port])), count(int64(hard[port]))})
	}
	if rows == nil {
		fmt.Fprintln(w, "no port with a hard cap has used anything, or no gate names them (--top-ports)")
		return
	}
	grid(w, []string{"nearest to their cap", "", "share", "used", "held", "hard cap"}, rows, 2, 3, 4, 5)
}

func age(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

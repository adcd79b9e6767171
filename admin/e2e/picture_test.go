package e2e

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/browser"
)

// TestPicture makes the pictures of the card for the README: two months of a harbour,
// each number booked from an event. scripts/screenshot keeps them.
func TestPicture(t *testing.T) {
	s := newSystem(t)
	now := time.Now().UTC()
	month, _ := events.PeriodMonth.Bounds(now)
	before, _ := events.PeriodMonth.Bounds(month.Add(-time.Hour))
	dice := rand.New(rand.NewPCG(7, 7))
	used, last := s.trade(dice, month, now), s.trade(dice, before, month)
	s.booked("marina-7", used+last)

	hard := last * 9 / 10 / 100_000 * 100_000 // the back-test has something to tell
	budget := monthly(tokens(hard*4/5), tokens(hard))
	budget.UpdatedBy = "Grace Hopper (oidc:auth0|7c2)"
	_, err := s.ledger.StoreBudget(t.Context(), "marina-7", budget, nil, func(events.Budget) error { return nil })
	s.must(err)

	url, link := s.door(operator)
	p := browser.Start(t).Page(t)
	p.Size(1320, 1200)
	p.Open(link)
	p.See("Overview")
	p.Open(url + "/?port=marina-7")
	p.See("tokens this month", "of the hard cap", "ocr", "With this cap")
	p.Do(`document.querySelector('ai-budget-card').setAttribute('name', 'Harbour North')`)
	for scheme, file := range map[string]string{"light": "card.png", "dark": "card-dark.png"} {
		p.Prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
		p.Capture(filepath.Join(browser.Artifacts(), file), "ai-budget-card", 2)
	}
}

// trade reports the AI calls of a harbour from start to end and returns their tokens:
// busy on working days, more of them each week.
func (s *system) trade(dice *rand.Rand, start, end time.Time) (sum int64) {
	kinds := []struct {
		feature, model  string
		weight, typical int
	}{
		{"ocr", "claude-sonnet-4-5", 46, 1900}, {"summary", "claude-sonnet-4-5", 20, 2400}, {"reply_draft", "claude-haiku-4-5", 24, 1100},
		{"embedding", "text-embedding-3-large", 30, 520}, {"translation", "claude-haiku-4-5", 6, 900},
	}
	people := []string{"ada", "grace", "grace", "linus", "margaret", ""}
	for day := start; day.Before(end); day = day.AddDate(0, 0, 1) {
		calls := 34 + dice.IntN(26) + day.Day()/3
		if day.Weekday() == time.Saturday || day.Weekday() == time.Sunday {
			calls /= 5
		}
		for range calls {
			at := day.Add(time.Duration(dice.Int64N(int64(24 * time.Hour))))
			if !at.Before(end) {
				continue
			}
			pick, k := dice.IntN(126), 0
			for ; pick >= kinds[k].weight; k++ {
				pick -= kinds[k].weight
			}
			n := int64(kinds[k].typical/2 + dice.IntN(kinds[k].typical))
			sum += n
			s.call("marina-7", at, n, func(u *events.Usage) {
				u.Feature, u.Model, u.UserID = kinds[k].feature, kinds[k].model, people[dice.IntN(len(people))]
			})
		}
	}
	return sum
}

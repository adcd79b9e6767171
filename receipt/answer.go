package receipt

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/events"
)

// Reason is why a receipt has to be typed, a stable word for machines.
type Reason string

// The reasons.
const (
	BudgetExceeded      Reason = "budget-exceeded"  // the hard cap refuses the reading
	GateUnavailable     Reason = "gate-unavailable" // nobody could say whether it may be paid for, and the policy is to refuse
	NotConfigured       Reason = "provider-not-configured"
	ProviderUnavailable Reason = "provider-unavailable" // down, too slow, or refusing
	UnreadableReply     Reason = "unreadable-reply"     // the provider answered nonsense
	UnreadableReceipt   Reason = "unreadable-receipt"   // the provider found nothing on the picture
)

// answer is the body of every scan that was let through.
type answer struct {
	Source         string       `json:"source"` // ai or manual
	Reason         Reason       `json:"reason,omitempty"`
	Detail         string       `json:"detail,omitempty"` // the reason, for people
	Receipt        *receiptJSON `json:"receipt"`
	Usage          *usageJSON   `json:"usage"`            // null: nothing was spent
	SoftCapWarning *warningJSON `json:"soft_cap_warning"` // null: below the soft cap
	Budget         *budgetJSON  `json:"budget"`           // null: no budget binds the port, or nobody knows it
	ResetsAt       *time.Time   `json:"resets_at,omitempty"`
}

type receiptJSON struct {
	Merchant *string    `json:"merchant"`
	Date     *string    `json:"date"` // 2006-01-02
	Total    *Amount    `json:"total"`
	Currency *string    `json:"currency"`
	Items    []itemJSON `json:"items"`
}

type itemJSON struct {
	Description string   `json:"description"`
	Quantity    *float64 `json:"quantity"`
	Amount      *Amount  `json:"amount"`
}

// usageJSON is what the scan cost, as the ledger books it: usually one call, and
// the sum of all where a call was tried again.
type usageJSON struct {
	Provider     string            `json:"provider"`
	Model        string            `json:"model"`
	InputTokens  int64             `json:"input_tokens"`
	OutputTokens int64             `json:"output_tokens"`
	TotalTokens  int64             `json:"total_tokens"`
	Details      events.Details    `json:"details"`
	MeasuredBy   events.MeasuredBy `json:"measured_by"`
	RequestID    string            `json:"request_id,omitempty"`
	ResponseID   string            `json:"response_id,omitempty"`
	Calls        int               `json:"calls"`
}

type budgetJSON struct {
	Period          events.Period `json:"period"`
	ResetsAt        time.Time     `json:"resets_at"`
	UsedTokens      int64         `json:"used_tokens"`
	HeldTokens      int64         `json:"held_tokens"`
	SoftCapTokens   *int64        `json:"soft_cap_tokens"`
	HardCapTokens   *int64        `json:"hard_cap_tokens"`
	RemainingTokens *int64        `json:"remaining_tokens"`
}

type warningJSON struct {
	Message string `json:"message"`
	budgetJSON
}

// outcome is the answer to a scan. The budget in it is as the gate saw it before
// the reading.
func (j *job) outcome(read Receipt, err error) answer {
	v, spent := j.seen()
	a := answer{Usage: usage(spent)}
	if v.Enabled {
		a.Budget = &budgetJSON{
			Period: v.Period, ResetsAt: v.ResetsAt, UsedTokens: v.UsedTokens, HeldTokens: v.HeldTokens,
			SoftCapTokens: v.SoftCapTokens, HardCapTokens: v.HardCapTokens, RemainingTokens: v.RemainingTokens,
		}
	}
	if a.Reason, a.Detail = reasonFor(v, read, err); a.Reason != "" {
		a.Source = "manual"
		if a.Reason == BudgetExceeded && !v.ResetsAt.IsZero() {
			a.ResetsAt = &v.ResetsAt
		}
		return a
	}
	a.Source, a.Receipt = "ai", read.json()
	if v.SoftCapWarning && a.Budget != nil {
		a.SoftCapWarning = &warningJSON{Message: softCapMessage(v), budgetJSON: *a.Budget}
	}
	return a
}

// reasonFor is the reason to type, "" when there is none. A verdict that refuses is
// the reason whatever the provider made of it.
func reasonFor(v events.Verdict, read Receipt, err error) (Reason, string) {
	switch {
	case !v.Allowed && (v.Reason == events.ReasonHardCapReached || v.Reason == events.ReasonEstimateExceedsHardCap):
		return BudgetExceeded, "The AI budget of this port is used up until " + v.ResetsAt.UTC().Format(dayAndTime) + " UTC."
	case !v.Allowed:
		return GateUnavailable, "Nobody can say right now whether this port may use AI."
	case errors.Is(err, ErrNotConfigured):
		return NotConfigured, "No AI is set up to read receipts here."
	case errors.Is(err, ErrUnreadableReply):
		return UnreadableReply, "The AI answered something that is no receipt."
	case errors.Is(err, context.DeadlineExceeded):
		return ProviderUnavailable, "The AI took too long."
	case err != nil:
		return ProviderUnavailable, "The AI is not available right now."
	case read.Empty():
		return UnreadableReceipt, "No receipt could be read on the picture."
	}
	return "", ""
}

func softCapMessage(v events.Verdict) string {
	s := "This port has used " + grouped(v.UsedTokens) + " tokens of its AI budget"
	if v.SoftCapTokens != nil {
		s += "; its soft cap is " + grouped(*v.SoftCapTokens)
	}
	if v.HardCapTokens != nil {
		s += ", and at " + grouped(*v.HardCapTokens) + " receipts have to be typed until " + v.ResetsAt.UTC().Format(dayAndTime) + " UTC"
	}
	return s + "."
}

const dayAndTime = "2 January 2006, 15:04"

// grouped is n, which is not negative, with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// usage sums what was spent; nil when nothing was.
func usage(spent []events.Usage) *usageJSON {
	if len(spent) == 0 {
		return nil
	}
	last := spent[len(spent)-1]
	sum := usageJSON{
		Provider: last.Provider, Model: last.Model, RequestID: last.RequestID, ResponseID: last.ResponseID,
		MeasuredBy: cmp.Or(last.MeasuredBy, events.MeasuredByProvider), Calls: len(spent),
	}
	for _, u := range spent {
		sum.InputTokens += u.InputTokens
		sum.OutputTokens += u.OutputTokens
		sum.TotalTokens += u.TotalTokens()
		sum.Details.CacheReadInputTokens += u.Details.CacheReadInputTokens
		sum.Details.CacheWriteInputTokens += u.Details.CacheWriteInputTokens
		sum.Details.ReasoningOutputTokens += u.Details.ReasoningOutputTokens
	}
	return &sum
}

func (r Receipt) json() *receiptJSON {
	out := &receiptJSON{Merchant: orNull(r.Merchant), Total: r.Total, Currency: orNull(r.Currency), Items: []itemJSON{}}
	if !r.Date.IsZero() {
		out.Date = orNull(r.Date.Format(time.DateOnly))
	}
	for _, item := range r.Items {
		it := itemJSON{Description: item.Description, Amount: item.Amount}
		if item.Quantity > 0 {
			it.Quantity = &item.Quantity
		}
		out.Items = append(out.Items, it)
	}
	return out
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func writeJSON(w http.ResponseWriter, body any) {
	text, err := json.Marshal(body)
	if err != nil { // nothing in it can fail
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(append(text, '\n')) // the client is gone: nobody to tell
}

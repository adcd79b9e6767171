package events

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/budget"
)

// What a port may spend, and how often that starts anew; the rule itself is package budget.
type (
	Budget        = budget.Budget
	Limit         = budget.Limit // of a budget, beside its own caps
	Period        = budget.Period
	RefusalReason = budget.RefusalReason // why a [Verdict] says no
)

// The periods. A week starts on Monday.
const (
	PeriodDay   = budget.Day
	PeriodWeek  = budget.Week
	PeriodMonth = budget.Month // the default
)

// The refusals. ReasonGateUnavailable never crosses the wire: the client says it
// when no gate answered and its policy is [FailClosed].
const (
	ReasonHardCapReached                       = budget.ReasonHardCapReached
	ReasonEstimateExceedsHardCap               = budget.ReasonEstimateExceedsHardCap
	ReasonGateStale              RefusalReason = "gate_stale"
	ReasonGateUnavailable        RefusalReason = "gate_unavailable"
)

// CheckRequest asks: may this port spend EstimatedTokens now? It writes nothing.
type CheckRequest struct {
	PortID          string `json:"port_id,omitempty"` // may be left out where the subject names it
	Feature         string `json:"feature,omitempty"`
	Provider        string `json:"provider,omitempty"`
	Model           string `json:"model,omitempty"`
	UserID          string `json:"user_id,omitempty"`
	RunID           string `json:"run_id,omitempty"`
	EstimatedTokens int64  `json:"estimated_tokens"`
	// The parts of the estimate, for limits that weigh them: both or none. Then
	// EstimatedTokens is their sum, or left out.
	EstimatedInputTokens  int64 `json:"estimated_input_tokens,omitzero"`
	EstimatedOutputTokens int64 `json:"estimated_output_tokens,omitzero"`
	Explain               bool  `json:"explain,omitzero"` // asks for [Verdict.Limits]
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r CheckRequest) Validate() error {
	if err := checkPort(r.PortID); err != nil {
		return err
	}
	for _, c := range []struct {
		field, value string
		maxChars     int
	}{
		{"feature", r.Feature, maxFeatureChars}, {"provider", r.Provider, maxProviderChars}, {"model", r.Model, maxModelChars},
		{"user_id", r.UserID, maxUserChars}, {"run_id", r.RunID, maxRunChars},
	} {
		if err := checkText(c.field, c.value, c.maxChars, false); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		field  string
		tokens int64
	}{
		{"estimated_tokens", r.EstimatedTokens}, {"estimated_input_tokens", r.EstimatedInputTokens}, {"estimated_output_tokens", r.EstimatedOutputTokens},
	} {
		if err := checkTokens(c.field, c.tokens); err != nil {
			return err
		}
	}
	if err := checkTokens("estimated_input_tokens + estimated_output_tokens", r.EstimatedInputTokens+r.EstimatedOutputTokens); err != nil {
		return err
	}
	if parts := r.EstimatedInputTokens + r.EstimatedOutputTokens; parts > 0 && r.EstimatedTokens != 0 && r.EstimatedTokens != parts {
		return invalid("estimated_tokens", r.EstimatedTokens, fmt.Sprintf("must be the sum of estimated_input_tokens and estimated_output_tokens (%d), or be left out", parts))
	}
	return nil
}

// Call is what the request asks about.
func (r *CheckRequest) Call() budget.Call {
	e := budget.Estimate{Tokens: r.EstimatedTokens, Input: r.EstimatedInputTokens, Output: r.EstimatedOutputTokens}
	if parts := e.Input + e.Output; parts > 0 {
		e.Tokens = parts
	}
	return budget.Call{Labels: budget.Labels{Feature: r.Feature, Provider: r.Provider, Model: r.Model, UserID: r.UserID, RunID: r.RunID}, Estimate: e}
}

// Verdict answers a check or a reserve. A refusal is a normal answer: it says
// why, how much is left and when the period rolls over.
type Verdict struct {
	Allowed        bool          `json:"allowed"`
	Reason         RefusalReason `json:"reason"`           // "" when allowed
	SoftCapWarning bool          `json:"soft_cap_warning"` // used + held + what was asked reach the soft cap, allowed or not
	Enabled        bool          `json:"enabled"`          // false: no budget binds this port
	// Limit is the one that refuses, the first if there are several, or else the one with
	// the smallest share left of its hard cap; "port" for the port's own caps. The figures
	// are of that limit, for LimitValue if it counts each value of something, in its Unit.
	Limit           string      `json:"limit"`
	LimitValue      string      `json:"limit_value,omitempty"`
	Unit            budget.Unit `json:"unit,omitempty"` // left out: tokens
	Period          Period      `json:"period"`         // the window of the limit
	PeriodStart     time.Time   `json:"period_start"`
	ResetsAt        time.Time   `json:"resets_at"` // null: never
	UsedTokens      int64       `json:"used_tokens"`
	HeldTokens      int64       `json:"held_tokens"`
	SoftCapTokens   *int64      `json:"soft_cap_tokens"`
	HardCapTokens   *int64      `json:"hard_cap_tokens"`
	RemainingTokens *int64      `json:"remaining_tokens"` // hard cap - used - held, never below 0; null without a hard cap
	AsOf            time.Time   `json:"as_of"`            // every commit up to then is counted

	// Backlog answers a check while something has been waiting to be booked for longer
	// than a second. These tokens are spent, and counted nowhere yet.
	Backlog

	// The rest answers a reserve that was allowed. UsedTokens, HeldTokens and
	// RemainingTokens then count the new hold too.
	ReservationID string    `json:"reservation_id,omitempty"`
	ExpiresAt     time.Time `json:"expires_at,omitzero"`
	GrantedTokens int64     `json:"granted_tokens,omitempty"` // what is held; less than asked only with accept_less

	// Limits is what each limit that matches says by itself, the port's own caps first; only
	// where the request asks to explain.
	Limits []LimitVerdict `json:"limits,omitempty"`
}

// LimitVerdict is what one limit says; the fields are those of a [Verdict].
type LimitVerdict struct {
	Limit           string        `json:"limit"`
	LimitValue      string        `json:"limit_value,omitempty"`
	Allowed         bool          `json:"allowed"`
	Reason          RefusalReason `json:"reason"`
	SoftCapWarning  bool          `json:"soft_cap_warning"`
	Unit            budget.Unit   `json:"unit"`
	Period          Period        `json:"period"`
	PeriodStart     time.Time     `json:"period_start"`
	ResetsAt        *time.Time    `json:"resets_at"`
	UsedTokens      int64         `json:"used_tokens"`
	HeldTokens      int64         `json:"held_tokens"`
	SoftCapTokens   *int64        `json:"soft_cap_tokens"`
	HardCapTokens   *int64        `json:"hard_cap_tokens"`
	RemainingTokens *int64        `json:"remaining_tokens"`
}

// NewLimitVerdicts is what limits say, in the form of an answer.
func NewLimitVerdicts(all []budget.Decision) []LimitVerdict {
	list := make([]LimitVerdict, len(all))
	for i, d := range all {
		list[i] = LimitVerdict{
			Limit: d.Limit, LimitValue: d.LimitValue, Allowed: d.Allowed, Reason: d.Reason, SoftCapWarning: d.SoftCapWarning,
			Unit: d.Unit, Period: d.Period, PeriodStart: d.PeriodStart, UsedTokens: d.UsedTokens, HeldTokens: d.HeldTokens,
			SoftCapTokens: d.SoftCapTokens, HardCapTokens: d.HardCapTokens, RemainingTokens: d.RemainingTokens,
		}
		if !d.ResetsAt.IsZero() {
			list[i].ResetsAt = &d.ResetsAt
		}
	}
	return list
}

// NewVerdict is a decision in the form of an answer.
func NewVerdict(d budget.Decision) Verdict {
	unit := d.Unit
	if unit == budget.Tokens {
		unit = ""
	}
	return Verdict{
		Allowed: d.Allowed, Reason: d.Reason, SoftCapWarning: d.SoftCapWarning,
		Enabled: d.Enabled, Limit: d.Limit, LimitValue: d.LimitValue, Unit: unit, Period: d.Period, PeriodStart: d.PeriodStart, ResetsAt: d.ResetsAt,
		UsedTokens: d.UsedTokens, HeldTokens: d.HeldTokens,
		SoftCapTokens: d.SoftCapTokens, HardCapTokens: d.HardCapTokens, RemainingTokens: d.RemainingTokens,
	}
}

// AppendJSON appends the verdict in its wire form. The gate answers tens of
// thousands a second; reflection would cost it a third of that.
func (v *Verdict) AppendJSON(b []byte) []byte {
	b = appendBool(b, `{"allowed":`, v.Allowed)
	b = append(b, `,"reason":"`...)
	b = append(b, v.Reason...)
	b = appendBool(b, `","soft_cap_warning":`, v.SoftCapWarning)
	b = appendBool(b, `,"enabled":`, v.Enabled)
	b = append(b, `,"limit":"`...)
	b = append(b, v.Limit...)
	b = append(b, '"')
	if v.LimitValue != "" {
		b = append(b, `,"limit_value":`...)
		b = appendQuoted(b, v.LimitValue)
	}
	if v.Unit != "" {
		b = append(b, `,"unit":"`...)
		b = append(b, v.Unit...)
		b = append(b, '"')
	}
	b = append(b, `,"period":"`...)
	b = append(b, v.Period...)
	b = appendTime(b, `","period_start":`, v.PeriodStart)
	if v.ResetsAt.IsZero() {
		b = append(b, `,"resets_at":null`...)
	} else {
		b = appendTime(b, `,"resets_at":`, v.ResetsAt)
	}
	b = appendInt(b, `,"used_tokens":`, v.UsedTokens)
	b = appendInt(b, `,"held_tokens":`, v.HeldTokens)
	b = appendCap(b, `,"soft_cap_tokens":`, v.SoftCapTokens)
	b = appendCap(b, `,"hard_cap_tokens":`, v.HardCapTokens)
	b = appendCap(b, `,"remaining_tokens":`, v.RemainingTokens)
	b = appendTime(b, `,"as_of":`, v.AsOf)
	b = v.Backlog.appendJSON(b)
	if v.ReservationID != "" {
		b = append(b, `,"reservation_id":`...)
		b = appendQuoted(b, v.ReservationID)
		b = appendTime(b, `,"expires_at":`, v.ExpiresAt)
		b = appendInt(b, `,"granted_tokens":`, v.GrantedTokens)
	}
	if len(v.Limits) > 0 {
		b = append(b, `,"limits":`...)
		list, err := json.Marshal(v.Limits)
		if err != nil {
			panic(err) // plain fields only
		}
		b = append(b, list...)
	}
	return append(b, '}')
}

func appendBool(b []byte, key string, v bool) []byte {
	b = append(b, key...)
	if v {
		return append(b, "true"...)
	}
	return append(b, "false"...)
}

func appendCap(b []byte, key string, n *int64) []byte {
	if n == nil {
		b = append(b, key...)
		return append(b, "null"...)
	}
	return appendInt(b, key, *n)
}

// SetRequest stores a budget. With IfVersion it is refused (409) unless the
// stored version is that one; 0 means "nothing stored yet".
type SetRequest struct {
	PortID        string `json:"port_id,omitempty"`
	Enabled       bool   `json:"enabled"`
	SoftCapTokens *int64 `json:"soft_cap_tokens"`
	HardCapTokens *int64 `json:"hard_cap_tokens"`
	Period        Period `json:"period,omitempty"` // default month
	// Limits are those beside the port's own caps. Left out, they stay as they are; an
	// empty list removes all.
	Limits    []Limit `json:"limits,omitzero"`
	IfVersion *int64  `json:"if_version,omitempty"`
	UpdatedBy string  `json:"updated_by,omitempty"`
}

// Budget is the budget that the request stores.
func (r SetRequest) Budget() Budget {
	if r.Period == "" {
		r.Period = PeriodMonth
	}
	return Budget{Enabled: r.Enabled, SoftCapTokens: r.SoftCapTokens, HardCapTokens: r.HardCapTokens, Period: r.Period, Limits: r.Limits, UpdatedBy: r.UpdatedBy}
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r SetRequest) Validate() error {
	if err := checkPort(r.PortID); err != nil {
		return err
	}
	return r.Budget().Validate()
}

// GetRequest asks for a port's budget.
type GetRequest struct {
	PortID string `json:"port_id,omitempty"`
}

// Dimension is what a usage report is broken down by.
type Dimension string

// The dimensions.
const (
	ByFeature Dimension = "feature"
	ByModel   Dimension = "model"
	ByUser    Dimension = "user"
	ByRun     Dimension = "run"
	ByDay     Dimension = "day"
)

// Valid reports whether d is one of the five.
func (d Dimension) Valid() bool {
	return d == ByFeature || d == ByModel || d == ByUser || d == ByRun || d == ByDay
}

// How many shares a page of a report has, unless the request says otherwise, and at most.
const (
	DefaultReportLimit = 500
	MaxReportLimit     = 1000
)

// ReportRequest asks for a page of a port's usage in the current period of its budget.
type ReportRequest struct {
	PortID string    `json:"port_id,omitempty"`
	By     Dimension `json:"by,omitempty"`    // default feature
	Limit  int       `json:"limit,omitzero"`  // how many shares at most; default 500, at most 1,000
	After  string    `json:"after,omitempty"` // the Next of the page before
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r ReportRequest) Validate() error {
	if err := checkPort(r.PortID); err != nil {
		return err
	}
	if r.By != "" && !r.By.Valid() {
		return invalid("by", r.By, "must be feature, model, user, run or day")
	}
	if r.Limit < 0 || r.Limit > MaxReportLimit {
		return invalid("limit", int64(r.Limit), fmt.Sprintf("must be a whole number from 1 to %d, or be left out for %d", MaxReportLimit, DefaultReportLimit))
	}
	return checkText("after", r.After, max(maxUserChars, maxRunChars)+maxNumberChars, false)
}

const maxNumberChars = 21 // a number and the colon behind it

// Report is a page of a port's usage in one period, broken down by one dimension.
type Report struct {
	PortID      string    `json:"port_id"`
	Period      Period    `json:"period"`
	PeriodStart time.Time `json:"period_start"`
	ResetsAt    time.Time `json:"resets_at"`
	UsedTokens  int64     `json:"used_tokens"` // of all pages
	Requests    int64     `json:"requests"`    // of all pages
	Dimension   Dimension `json:"dimension"`
	By          []Share   `json:"by"`             // most tokens first; days in order
	More        bool      `json:"more"`           // there are more: Next is the next page's After
	Next        string    `json:"next,omitempty"` // "" on the last page
	AsOf        time.Time `json:"as_of"`
}

// Share is one row of a report. Key is the feature, the model, the user ("" for
// system-initiated and erased ones), the run ("" for calls without one) or the day (2026-11-23).
type Share struct {
	Key          string `json:"key"`
	Requests     int64  `json:"requests"`
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
	TotalTokens  int64  `json:"total_tokens"`
}

// DecodeRequest reads a request that arrived on subject (base or base.<port>)
// into one of the request types, as [DecodeStrict] does, and returns the port it is
// for. Every error is a [*FieldError].
func DecodeRequest(base, subject string, payload []byte, into any) (port string, err error) {
	subjectPort, ok := SubjectPort(base, subject)
	if !ok {
		return "", refuse(ReasonInvalidField, "subject", subject, "must be "+base+" or "+base+".<port>, the port being 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if err := DecodeStrict(payload, into); err != nil {
		return "", err
	}
	named := portField(into)
	switch {
	case subjectPort == "":
	case *named == "":
		*named = subjectPort
	case *named != subjectPort:
		return "", refuse(ReasonPortMismatch, "port_id", *named, "the subject names port "+subjectPort)
	}
	return *named, checkPort(*named)
}

func portField(request any) *string {
	switch r := request.(type) {
	case *CheckRequest:
		return &r.PortID
	case *GetRequest:
		return &r.PortID
	case *SetRequest:
		return &r.PortID
	case *ReportRequest:
		return &r.PortID
	case *ReserveRequest:
		return &r.PortID
	case *ReleaseRequest:
		return &r.PortID
	default:
		panic(fmt.Sprintf("events: %T is not a request", request))
	}
}

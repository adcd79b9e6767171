package events

import (
	"cmp"
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

// What a [Verdict] calls the port's own caps among the limits, and the unit of limits on the
// number of calls.
const (
	PortLimit    = budget.PortLimit
	UnitRequests = budget.Requests
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
	err := cmp.Or(checkPort(r.PortID),
		checkText("feature", r.Feature, maxFeatureChars, false), checkText("provider", r.Provider, maxProviderChars, false),
		checkText("model", r.Model, maxModelChars, false), checkText("user_id", r.UserID, maxUserChars, false),
		checkText("run_id", r.RunID, maxRunChars, false), checkTokens("estimated_tokens", r.EstimatedTokens))
	if err != nil || r.EstimatedInputTokens == 0 && r.EstimatedOutputTokens == 0 {
		return err
	}
	parts := r.EstimatedInputTokens + r.EstimatedOutputTokens
	err = cmp.Or(checkTokens("estimated_input_tokens", r.EstimatedInputTokens), checkTokens("estimated_output_tokens", r.EstimatedOutputTokens),
		checkTokens("estimated_input_tokens + estimated_output_tokens", parts))
	if err == nil && r.EstimatedTokens != 0 && r.EstimatedTokens != parts {
		err = invalid("estimated_tokens", r.EstimatedTokens, fmt.Sprintf("must be the sum of estimated_input_tokens and estimated_output_tokens (%d), or be left out", parts))
	}
	return err
}

// Call is what the request asks about.
func (r *CheckRequest) Call() budget.Call {
	e := budget.Estimate{Tokens: r.EstimatedTokens, Input: r.EstimatedInputTokens, Output: r.EstimatedOutputTokens}
	if parts := e.Input + e.Output; parts > 0 {
		e.Tokens = parts
	}
	return budget.Call{Labels: budget.Labels{Feature: r.Feature, Provider: r.Provider, Model: r.Model, UserID: r.UserID, RunID: r.RunID}, Estimate: e}
}

// DefaultPort, as the PortID of a [GetRequest] or a [SetRequest], names the default budget: that
// of every port that has none of its own. No subject can name it.
const DefaultPort = budget.DefaultPort

// SetRequest stores a budget. With IfVersion it is refused (409) unless the
// stored version is that one; 0 means "nothing stored yet".
type SetRequest struct {
	PortID        string `json:"port_id,omitempty"`
	Enabled       bool   `json:"enabled"`
	SoftCapTokens *int64 `json:"soft_cap_tokens"`
	HardCapTokens *int64 `json:"hard_cap_tokens"`
	Period        Period `json:"period,omitempty"` // default month
	// ExtraTokens are on top of the hard cap until ExtraUntil. Left out, those that are stored
	// stay; 0 removes them.
	ExtraTokens *int64    `json:"extra_tokens,omitempty"`
	ExtraUntil  time.Time `json:"extra_until,omitzero"`
	// Limits are those beside the port's own caps. Left out, they stay as they are; an
	// empty list removes all.
	Limits []Limit `json:"limits,omitzero"`
	// Default gives the port back to the default budget. Nothing else of a budget may be given.
	Default   bool   `json:"default,omitzero"`
	IfVersion *int64 `json:"if_version,omitempty"`
	UpdatedBy string `json:"updated_by,omitempty"`
}

// Budget is the budget that the request stores.
func (r SetRequest) Budget() Budget {
	return Budget{Enabled: r.Enabled, SoftCapTokens: r.SoftCapTokens, HardCapTokens: r.HardCapTokens, Period: cmp.Or(r.Period, PeriodMonth),
		ExtraTokens: r.ExtraTokens, ExtraUntil: r.ExtraUntil, Limits: r.Limits, Default: r.Default, UpdatedBy: r.UpdatedBy}
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r SetRequest) Validate() error {
	if err := checkPortOrDefault(r.PortID); err != nil {
		return err
	}
	return r.Budget().ValidateFor(r.PortID)
}

// GetRequest asks for a port's budget.
type GetRequest struct {
	PortID string `json:"port_id,omitempty"`
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r GetRequest) Validate() error { return checkPortOrDefault(r.PortID) }

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
	// LimitName asks for what a limit of the budget counts instead: see [Client.LimitUsage].
	LimitName string `json:"limit_name,omitempty"`
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r ReportRequest) Validate() error {
	if err := checkPort(r.PortID); err != nil {
		return err
	}
	if r.By != "" && !r.By.Valid() {
		return invalid("by", r.By, "must be feature, model, user, run or day")
	}
	if r.LimitName != "" && r.By != "" {
		return invalid("by", r.By, "must be left out beside limit_name: a limit says itself what it counts")
	}
	if err := checkText("limit_name", r.LimitName, maxLimitNameChars, false); err != nil {
		return err
	}
	if r.Limit < 0 || r.Limit > MaxReportLimit {
		return invalid("limit", int64(r.Limit), fmt.Sprintf("must be a whole number from 1 to %d, or be left out for %d", MaxReportLimit, DefaultReportLimit))
	}
	return checkText("after", r.After, max(maxUserChars, maxRunChars)+maxNumberChars, false)
}

const (
	maxNumberChars    = 21 // a number and the colon behind it
	maxLimitNameChars = 64
)

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

// LimitReport is a page of what a limit of a port's budget counts in its present window. The
// figures are in its unit; of unit weighted rounded, as in a [Verdict].
type LimitReport struct {
	PortID        string        `json:"port_id"`
	Limit         string        `json:"limit"`
	Per           budget.Per    `json:"per,omitempty"` // left out: all calls are counted together, and there is one counter
	Unit          budget.Unit   `json:"unit"`
	Period        Period        `json:"period"` // the window of the limit
	PeriodStart   time.Time     `json:"period_start"`
	ResetsAt      *time.Time    `json:"resets_at"` // null: never
	SoftCapTokens *int64        `json:"soft_cap_tokens"`
	HardCapTokens *int64        `json:"hard_cap_tokens"`
	Values        int64         `json:"values"`         // that are counted, of all pages
	Counters      []CounterUsed `json:"counters"`       // most used first, then by value
	More          bool          `json:"more"`           // there are more: Next is the next page's After
	Next          string        `json:"next,omitempty"` // "" on the last page
	AsOf          time.Time     `json:"as_of"`
}

// CounterUsed is what calls with a value have used of a limit.
type CounterUsed struct {
	Value           string `json:"value"` // "": calls that do not name it, and those of erased users
	UsedTokens      int64  `json:"used_tokens"`
	HeldTokens      int64  `json:"held_tokens"`      // as the gate that answers knows it
	RemainingTokens *int64 `json:"remaining_tokens"` // hard cap - used - held, never below 0; null without a hard cap
}

// request is one of the questions that there are.
type request interface {
	Validate() error
	port() *string
}

func (r *CheckRequest) port() *string   { return &r.PortID }
func (r *ReserveRequest) port() *string { return &r.PortID }
func (r *ReleaseRequest) port() *string { return &r.PortID }
func (r *GetRequest) port() *string     { return &r.PortID }
func (r *SetRequest) port() *string     { return &r.PortID }
func (r *ReportRequest) port() *string  { return &r.PortID }

// DecodeRequest reads a request that arrived on subject (base or base.<port>)
// into one of the request types, as [DecodeStrict] does, validates it, and returns the port
// it is for. Every error is a [*FieldError].
func DecodeRequest(base, subject string, payload []byte, into any) (port string, err error) {
	subjectPort, ok := SubjectPort(base, subject)
	if !ok {
		return "", refuse(ReasonInvalidField, "subject", subject, "must be "+base+" or "+base+".<port>, the port being 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if err := DecodeStrict(payload, into); err != nil {
		return "", err
	}
	r := into.(request)
	named := r.port()
	*named = cmp.Or(*named, subjectPort)
	if subjectPort != "" && *named != subjectPort {
		return "", refuse(ReasonPortMismatch, "port_id", *named, "the subject names port "+subjectPort)
	}
	return *named, r.Validate()
}

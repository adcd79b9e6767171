package budget_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/budget"
)

func TestBudget_Validate(t *testing.T) {
	for name, c := range map[string]struct {
		b     budget.Budget
		field string
	}{
		"no caps":        {budget.Budget{Period: budget.Day}, ""},
		"caps of zero":   {budget.Budget{Period: budget.Week, SoftCapTokens: n(0), HardCapTokens: n(0)}, ""},
		"soft = hard":    {budget.Budget{Period: budget.Month, SoftCapTokens: n(5), HardCapTokens: n(5)}, ""},
		"soft only":      {budget.Budget{Period: budget.Month, SoftCapTokens: n(5)}, ""},
		"the largest":    {budget.Budget{Period: budget.Month, HardCapTokens: n(1<<53 - 1)}, ""},
		"no period":      {budget.Budget{}, "period"},
		"another period": {budget.Budget{Period: "year"}, "period"},
		"soft > hard":    {budget.Budget{Period: budget.Day, SoftCapTokens: n(6), HardCapTokens: n(5)}, "soft_cap_tokens"},
		"negative soft":  {budget.Budget{Period: budget.Day, SoftCapTokens: n(-1)}, "soft_cap_tokens"},
		"negative hard":  {budget.Budget{Period: budget.Day, HardCapTokens: n(-1)}, "hard_cap_tokens"},
		"too large":      {budget.Budget{Period: budget.Day, HardCapTokens: n(1 << 53)}, "hard_cap_tokens"},
		"a long name":    {budget.Budget{Period: budget.Day, UpdatedBy: strings.Repeat("x", 129)}, "updated_by"},
	} {
		err := c.b.Validate()
		var e *budget.FieldError
		if c.field == "" && err != nil || c.field != "" && (!errors.As(err, &e) || e.Field != c.field) {
			t.Errorf("%s: want %q, got %v", name, c.field, err)
		}
	}
}

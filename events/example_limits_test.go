package events_test

import (
	"encoding/json"
	"fmt"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// Limits are caps beside a port's own, by what calls are for.
func ExampleSetRequest() {
	request := events.SetRequest{PortID: "marina-7", Enabled: true, Limits: []events.Limit{
		{Name: "each-user", Per: budget.PerUser, Window: budget.Hour, Hard: new(int64(25_000))},
		{Name: "frontier", Match: budget.Match{Model: "gpt-5*"}, Window: budget.Week, Unit: budget.Weighted,
			Weights: budget.Weights{Output: new(budget.Weight(4 * budget.WeightScale))}, Hard: new(int64(9_000_000))},
	}}
	for _, l := range request.Limits {
		body, _ := json.Marshal(l)
		fmt.Println(string(body), request.Validate())
	}
	// Output:
	// {"name":"each-user","per":"user_id","window":"hour","hard":25000} <nil>
	// {"name":"frontier","match":{"model":"gpt-5*"},"window":"week","unit":"weighted","weights":{"output":4},"hard":9000000} <nil>
}

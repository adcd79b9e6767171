package admin_test

import (
	"net/http"
	"testing"
	"time"
)

func TestDefaultBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", time.Now())
	ask := func(method, path, body, ifMatch string) answer {
		t.Helper()
		r := request{method: method, path: path, token: w.all, body: body, header: []string{"Content-Type", "application/json"}}
		if ifMatch != "" {
			r.header = append(r.header, "If-Match", ifMatch)
		}
		return w.do(r)
	}
	const standard = "/api/v1/default-budget"
	put := ask("PUT", standard, monthly, "0")
	put.want(w, http.StatusOK)
	if got := stateOf(t, put.text); got["version"] != 1.0 || put.Header.Get("ETag") != `"1"` {
		t.Errorf("stored: %s", put.text)
	}
	ask("PUT", standard, monthly, "0").want(w, http.StatusPreconditionFailed)
	var audit struct{ Changes []any }
	log := ask("GET", standard+"/audit", "", "")
	log.into(w, &audit)
	if len(audit.Changes) != 1 {
		t.Errorf("the log: %s", log.text)
	}
	got := stateOf(t, w.getBudget().text)
	if got["default"] != true || got["version"] != 0.0 || got["hard_cap_tokens"] != stateOf(t, put.text)["hard_cap_tokens"] {
		t.Errorf("a port without a budget: %v", got)
	}
	w.put(monthly, "0").want(w, http.StatusOK)
	if got := stateOf(t, w.getBudget().text); got["default"] != false {
		t.Errorf("a port with a budget: %v", got)
	}
	ask("DELETE", budgetPath, "", "").want(w, http.StatusPreconditionRequired)
	back := ask("DELETE", budgetPath, "", "1")
	back.want(w, http.StatusOK)
	if got := stateOf(t, back.text); got["default"] != true || got["version"] != 2.0 {
		t.Errorf("given back: %s", back.text)
	}
	ports := ask("GET", "/api/v1/ports", "", "")
	var list struct {
		Ports []struct{ Budget struct{ Default bool } }
	}
	ports.into(w, &list)
	if len(list.Ports) != 1 || !list.Ports[0].Budget.Default {
		t.Errorf("the list: %s", ports.text)
	}
	for _, method := range []string{"GET", "PUT"} { // it is every port's
		w.do(request{method: method, path: standard, token: w.onlyP1, body: monthly}).want(w, http.StatusForbidden)
	}
}

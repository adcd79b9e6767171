package typescript_test

import (
	"io"
	"net/http"
	"strings"
)

// provider is a fake OpenAI, as far as the programs of the pages ask for it.
func (w *world) provider() (url string) {
	const usage = `"usage":{"input_tokens":20,"input_tokens_details":{"cached_tokens":8},"output_tokens":14,"output_tokens_details":{"reasoning_tokens":10},"total_tokens":34}`
	const head = `"id":"resp_1","object":"response","created_at":1700000000,"model":"gpt-5-mini-2025-08-07"`
	const message = `{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"A harbour.","annotations":[]}]}`
	events := []string{
		`{"type":"response.created","sequence_number":0,"response":{` + head + `,"status":"in_progress","output":[]}}`,
		`{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"type":"message","id":"msg_1","status":"in_progress","role":"assistant","content":[]}}`,
		`{"type":"response.output_text.delta","sequence_number":2,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"A harbour."}`,
		`{"type":"response.output_item.done","sequence_number":3,"output_index":0,"item":` + message + `}`,
		`{"type":"response.completed","sequence_number":4,"response":{` + head + `,"status":"completed","output":[` + message + `],` + usage + `}}`,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/responses", func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "tidegate") || strings.Contains(string(body), `"ada"`) {
			w.Errorf("the provider is told what is Tidegate's: %s", body)
		}
		rw.Header().Set("X-Request-Id", "req_1")
		if strings.Contains(string(body), `"stream":true`) {
			rw.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(rw, "data: "+strings.Join(events, "\n\ndata: ")+"\n\n")
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{`+head+`,"status":"completed","output":[`+message+`],`+usage+`}`)
	})
	mux.HandleFunc("POST /v1/embeddings", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"object":"list","model":"text-embedding-3-small","data":[{"object":"embedding","index":0,"embedding":[1,2]},{"object":"embedding","index":1,"embedding":[3,4]}],"usage":{"prompt_tokens":11,"total_tokens":11}}`)
	})
	return w.serve(mux)
}

package proxy

import "net/http"

// shape writes a fault as one of the providers would, header included, and says its status.
type shape func(f *fault, h http.Header) (status int, body any)

type object = map[string]any

// with adds what programs may read of a refusal.
func with(o object, f *fault) object {
	if f.verdict != nil {
		o["tidegate"] = f.verdict
	}
	return o
}

// https://platform.openai.com/docs/guides/error-codes
func openAIShape(f *fault, _ http.Header) (int, any) {
	return f.status, object{"error": with(object{"message": f.message, "type": f.openAI, "param": nil, "code": f.openAI}, f)}
}

// https://platform.claude.com/docs/en/api/errors
func anthropicShape(f *fault, _ http.Header) (int, any) {
	return f.status, object{"type": "error", "error": with(object{"type": f.anthropic, "message": f.message}, f)}
}

// https://cloud.google.com/apis/design/errors
func googleShape(f *fault, _ http.Header) (int, any) {
	details := []any{}
	if f.verdict != nil {
		details = append(details, with(object{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "tidegate", "reason": f.verdict.Reason}, f))
	}
	return f.status, object{"error": object{"code": f.status, "message": f.message, "status": f.google, "details": details}}
}

// AWS' SDKs know an error by the header. That for Python tries every 429 again, so a refusal is a 400,
// which is what Bedrock says of a quota.
func awsShape(f *fault, h http.Header) (int, any) {
	h.Set("X-Amzn-Errortype", f.aws)
	status := f.status
	if f.awsStatus != 0 {
		status = f.awsStatus
	}
	return status, with(object{"message": f.message}, f)
}

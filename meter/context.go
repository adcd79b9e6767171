package meter

import "context"

type contextKey uint8

const (
	portKey contextKey = iota
	userKey
	runKey
	featureKey
)

// WithPort makes calls with this context count for port instead of [Config.Port].
func WithPort(ctx context.Context, port string) context.Context {
	return context.WithValue(ctx, portKey, port)
}

// WithUser makes calls with this context count for user instead of [Config.User];
// "" is the system itself.
func WithUser(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey, user)
}

// WithRun makes calls with this context count for an agent run, a conversation or a job.
// Without it they belong to none.
func WithRun(ctx context.Context, run string) context.Context {
	return context.WithValue(ctx, runKey, run)
}

// WithFeature makes calls with this context count as feature instead of
// [Config.Feature].
func WithFeature(ctx context.Context, feature string) context.Context {
	return context.WithValue(ctx, featureKey, feature)
}

func fromContext(ctx context.Context, key contextKey, otherwise string) string {
	if s, ok := ctx.Value(key).(string); ok {
		return s
	}
	return otherwise
}

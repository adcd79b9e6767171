package receipt

import (
	"context"
	"errors"
	"image"
	"net/http"

	"github.com/tidegate/tidegate/events"
)

// Provider reads receipts. It is used by many goroutines at once.
type Provider interface {
	// Name is the provider in usage events, such as "openai".
	Name() string

	// Read returns what stands on the picture. Calls that cost tokens go through
	// metered, which reserves before them, refuses with a [meter.RefusedError], and
	// records what the provider says they cost. usage is of a reading that no call
	// tells about, because it is done here: nil means that metered has seen all.
	//
	// The error is [ErrNotConfigured] when the provider cannot be asked at all,
	// [ErrUnreadableReply] when it answered nonsense; whatever else it is means that
	// the provider failed. usage counts beside an error too.
	Read(ctx context.Context, metered *http.Client, picture image.Image) (receipt Receipt, usage *events.Usage, err error)
}

var (
	// ErrNotConfigured says what an operator has to set or install.
	ErrNotConfigured = errors.New("the provider is not configured")
	// ErrUnreadableReply says that a provider answered something else than a receipt.
	ErrUnreadableReply = errors.New("the provider's reply is not of the form that was asked for")
)

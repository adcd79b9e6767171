package receipt

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/receipt/picture"
)

// upload reads the picture out of a multipart form: its part image, or file.
func (s *service) upload(r *http.Request) ([]byte, *safehttp.Problem) {
	form, err := r.MultipartReader()
	if err != nil {
		return nil, problem(http.StatusUnsupportedMediaType, "not-multipart", "No form was sent", "send multipart/form-data with the picture in its part image: "+err.Error())
	}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, problem(http.StatusBadRequest, "no-image", "No picture was sent", "the form must have a part named image, or file, with a JPEG, PNG or WebP picture")
		}
		if err != nil {
			return nil, s.unreadable(err)
		}
		if name := part.FormName(); name != "image" && name != "file" {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(part, s.MaxBytes+1))
		switch {
		case err != nil:
			return nil, s.unreadable(err)
		case int64(len(data)) > s.MaxBytes:
			return nil, s.tooManyBytes()
		case len(data) == 0:
			return nil, problem(http.StatusBadRequest, "no-image", "No picture was sent", "the part "+part.FormName()+" is empty")
		}
		return data, nil
	}
}

func (s *service) unreadable(err error) *safehttp.Problem {
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return s.tooManyBytes()
	}
	return problem(http.StatusBadRequest, "malformed-form", "The form cannot be read", "it is not whole, or took too long: "+err.Error())
}

func (s *service) tooManyBytes() *safehttp.Problem {
	return problem(http.StatusRequestEntityTooLarge, "too-many-bytes", "The picture is too large", fmt.Sprintf("at most %d bytes (%.0f MiB) are taken: take the photo with a lower resolution", s.MaxBytes, float64(s.MaxBytes)/(1<<20)))
}

// pictureProblem is the answer to an upload that is no picture, or too large a one.
func pictureProblem(err error) *safehttp.Problem {
	switch {
	case errors.Is(err, picture.ErrTooLarge):
		return problem(http.StatusRequestEntityTooLarge, "too-many-pixels", "The picture is too large", err.Error()+": take the photo with a lower resolution")
	case errors.Is(err, picture.ErrKind):
		return problem(http.StatusUnsupportedMediaType, "unsupported-image", "This kind of file is not taken", err.Error())
	default:
		return problem(http.StatusUnprocessableEntity, "damaged-image", "The picture cannot be opened", err.Error())
	}
}

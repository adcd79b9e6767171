package picture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"io"

	"golang.org/x/image/webp"
)

func isWebP(data []byte) bool {
	return len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP"
}

// webpSize is the size that decoding takes memory for. An extended file says it
// twice, of its canvas and of the frame in it, and nothing makes the two agree.
func webpSize(data []byte) (image.Config, error) {
	canvas, err := webp.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return image.Config{}, err
	}
	for at := 12; at+8 <= len(data); {
		length := int(binary.LittleEndian.Uint32(data[at+4:]))
		switch string(data[at : at+4]) {
		case "VP8 ", "VP8L":
			frame, err := webp.DecodeConfig(io.MultiReader(bytes.NewReader(data[:12]), bytes.NewReader(data[at:])))
			return image.Config{Width: max(canvas.Width, frame.Width), Height: max(canvas.Height, frame.Height)}, err
		case "ANIM", "ANMF":
			return image.Config{}, errors.New("it is animated")
		}
		at += 8 + length + length%2
	}
	return image.Config{}, errors.New("it has no frame")
}

// Package picture turns an upload into an upright image of bounded size, and
// prepares that for those who read it.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"
)

// The kinds of failure. Every error of [Open] and [File.Decode] is one of them.
var (
	ErrKind      = errors.New("this is no JPEG, PNG or WebP picture")
	ErrTooLarge  = errors.New("the picture has too many pixels")
	ErrUndecoded = errors.New("the picture is damaged, or of a variant that is not supported")
)

// maxEdge is how long the longer edge of a decoded picture is at most: a receipt
// of 30 cm at 250 dpi. More shows no more of it.
const maxEdge = 3000

// format is a kind of picture. size reads nothing but headers.
type format struct {
	name   string
	is     func(data []byte) bool
	size   func(data []byte) (image.Config, error)
	decode func(data []byte) (image.Image, error)
}

var formats = []format{
	{"JPEG", startsWith("\xff\xd8\xff"),
		func(data []byte) (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(data)) },
		func(data []byte) (image.Image, error) { return jpeg.Decode(bytes.NewReader(data)) }},
	{"PNG", startsWith("\x89PNG\r\n\x1a\n"),
		func(data []byte) (image.Config, error) { return png.DecodeConfig(bytes.NewReader(data)) },
		func(data []byte) (image.Image, error) { return png.Decode(bytes.NewReader(data)) }},
	{"WebP", isWebP, webpSize,
		func(data []byte) (image.Image, error) { return webp.Decode(bytes.NewReader(data)) }},
}

func startsWith(magic string) func([]byte) bool {
	return func(data []byte) bool { return bytes.HasPrefix(data, []byte(magic)) }
}

// File is a picture file whose header was read.
type File struct {
	Pixels int // before it is shrunk
	data   []byte
	format format
}

// Open looks at the header of a JPEG, PNG or WebP picture of at most maxPixels,
// whatever the file calls itself. It decodes nothing, so a small file that would
// unfold to a huge picture costs nothing.
func Open(data []byte, maxPixels int) (File, error) {
	for _, f := range formats {
		if f.is(data) {
			pixels, err := f.pixels(data, maxPixels)
			return File{pixels, data, f}, err
		}
	}
	return File{}, ErrKind
}

func (f format) pixels(data []byte, most int) (int, error) {
	size, err := f.size(data)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %v", ErrUndecoded, f.name, err)
	}
	if size.Width <= 0 || size.Height <= 0 {
		return 0, fmt.Errorf("%w: %s: it is empty", ErrUndecoded, f.name)
	}
	if size.Width > most/size.Height {
		return 0, fmt.Errorf("%w: %d × %d, at most %.1f million are taken", ErrTooLarge, size.Width, size.Height, float64(most)/1e6)
	}
	return size.Width * size.Height, nil
}

// Decode returns the picture upright, on white, and no longer than 3,000 pixels.
func (f File) Decode() (*image.RGBA, error) {
	img, err := f.format.decode(f.data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrUndecoded, f.format.name, err)
	}
	return upright(Fit(img, maxEdge), orientation(f.data)), nil
}

// Fit returns the picture on white, shrunk so that its longer edge is at most edge.
// Beside picture and result it takes hardly any memory, which draw's better filters
// do: here they would take half a gigabyte.
func Fit(img image.Image, edge int) *image.RGBA {
	factor := max(img.Bounds().Dx(), img.Bounds().Dy()) / edge
	if whole, ok := img.(image.RGBA64Image); ok && factor >= 2 { // all that the decoders make are
		img = average(whole, factor)
	}
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	if longer := max(w, h); longer > edge {
		w, h = max(1, w*edge/longer), max(1, h*edge/longer)
	}
	fitted := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(fitted, fitted.Bounds(), image.White, image.Point{}, draw.Src)
	draw.ApproxBiLinear.Scale(fitted, fitted.Bounds(), img, b, draw.Over, nil)
	return fitted
}

// average shrinks the picture to a whole fraction: each pixel is the mean of a square.
func average(img image.RGBA64Image, factor int) *image.RGBA64 {
	b := img.Bounds()
	small := image.NewRGBA64(image.Rect(0, 0, max(1, b.Dx()/factor), max(1, b.Dy()/factor)))
	for y := range small.Rect.Dy() {
		for x := range small.Rect.Dx() {
			var sum [4]uint32
			n := uint32(0)
			for dy := range min(factor, b.Dy()) {
				for dx := range min(factor, b.Dx()) {
					c := img.RGBA64At(b.Min.X+x*factor+dx, b.Min.Y+y*factor+dy)
					sum[0], sum[1], sum[2], sum[3] = sum[0]+uint32(c.R), sum[1]+uint32(c.G), sum[2]+uint32(c.B), sum[3]+uint32(c.A)
					n++
				}
			}
			small.SetRGBA64(x, y, color.RGBA64{R: uint16(sum[0] / n), G: uint16(sum[1] / n), B: uint16(sum[2] / n), A: uint16(sum[3] / n)})
		}
	}
	return small
}

// JPEG is the picture as a JPEG file whose longer edge is at most edge. It says
// nothing else of the photo: not where or with what it was taken.
func JPEG(img image.Image, edge int) ([]byte, error) {
	var file bytes.Buffer
	if err := jpeg.Encode(&file, Fit(img, edge), &jpeg.Options{Quality: 88}); err != nil {
		return nil, fmt.Errorf("picture: encoding a JPEG: %w", err)
	}
	return file.Bytes(), nil
}

package picture

import (
	"image"
	"math"

	"golang.org/x/image/draw"
)

// Gray is the picture in shades of gray, on white where it is transparent.
func Gray(img image.Image) *image.Gray {
	b := img.Bounds()
	gray := image.NewGray(image.Rect(0, 0, b.Dx(), b.Dy()))
	if same, ok := img.(*image.Gray); ok { // draw would go through the colours of each pixel
		for y := range b.Dy() {
			copy(gray.Pix[y*gray.Stride:][:b.Dx()], same.Pix[same.PixOffset(b.Min.X, b.Min.Y+y):])
		}
		return gray
	}
	for i := range gray.Pix {
		gray.Pix[i] = 255
	}
	draw.Draw(gray, gray.Bounds(), img, b.Min, draw.Over)
	return gray
}

// Scale resizes by factor, with a filter that keeps the edges of letters.
func Scale(gray *image.Gray, factor float64) *image.Gray {
	if factor == 1 {
		return gray
	}
	b := gray.Bounds()
	w, h := max(1, int(math.Round(float64(b.Dx())*factor))), max(1, int(math.Round(float64(b.Dy())*factor)))
	scaled := image.NewGray(image.Rect(0, 0, w, h))
	draw.CatmullRom.Scale(scaled, scaled.Bounds(), gray, b, draw.Src, nil)
	return scaled
}

// Flatten evens out the light: each pixel is compared with the mean of the
// square of the given radius around it, so that shadows and the glow of a lamp
// vanish while strokes keep their shape.
func Flatten(gray *image.Gray, radius int) *image.Gray {
	w, h := gray.Bounds().Dx(), gray.Bounds().Dy()
	sum := make([]uint32, (w+1)*(h+1)) // of all pixels above and left; 40 MP * 255 fits
	for y := range h {
		row := uint32(0)
		for x := range w {
			row += uint32(gray.Pix[y*gray.Stride+x])
			sum[(y+1)*(w+1)+x+1] = sum[y*(w+1)+x+1] + row
		}
	}
	flat := image.NewGray(gray.Bounds())
	for y := range h {
		top, bottom := max(0, y-radius), min(h, y+radius+1)
		for x := range w {
			left, right := max(0, x-radius), min(w, x+radius+1)
			mean := (sum[bottom*(w+1)+right] - sum[top*(w+1)+right] - sum[bottom*(w+1)+left] + sum[top*(w+1)+left]) / uint32((bottom-top)*(right-left))
			// Paper is where the mean is: it becomes nearly white, ink keeps its ratio to it.
			v := uint32(gray.Pix[y*gray.Stride+x]) * 235 / max(mean, 1)
			flat.Pix[y*flat.Stride+x] = uint8(min(v, 255))
		}
	}
	return flat
}

package tesseract_test

import (
	"image"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/receipt/receipttest"
	"github.com/tidegate/tidegate/receipt/tesseract"
)

// The largest picture that can come stays within the limits.
func TestTheLargestPicture(t *testing.T) {
	page := receipttest.Draw(t, strings.Repeat("TOTAL 103.90 "+strings.Repeat("word ", 25)+"\n", 10), 30)
	full := image.NewGray(image.Rect(0, 0, 3000, 3000))
	for i := range full.Pix {
		full.Pix[i] = 255
	}
	for y := range min(3000, page.Rect.Dy()) {
		copy(full.Pix[y*full.Stride:][:min(3000, page.Rect.Dx())], page.Pix[y*page.Stride:])
	}
	read, _, err := tesseract.New(tesseract.Config{Timeout: 60 * time.Second}).Read(t.Context(), nil, full)
	if err != nil || read.Total == nil || *read.Total != 10390 {
		t.Errorf("%+v, %v", read, err)
	}
}

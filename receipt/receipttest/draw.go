// Package receipttest draws receipts for tests, so that no photo of somebody's
// purchase has to be in the repository.
package receipttest

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// Groceries is a receipt as tills print them: two items, a discount of the rounding,
// cash and change.
const Groceries = `
        HARBOUR SUPPLY SDN BHD
          12, JALAN PELABUHAN
          42000 PORT KLANG
         TEL: 03-5550 1234
             TAX INVOICE

Invoice No: 004711
Date: 14/03/2025        18:22:07
Cashier: AIDA

Qty  Description            RM
2    MOORING ROPE 12MM      84.00
1    DECK BRUSH             19.91

     Sub Total             103.91
     Rounding Adj           -0.01
     TOTAL                 103.90

     CASH                  150.00
     CHANGE                 46.10

       Thank you, come again`

// Draw prints text in black on paper of which the light is uneven and the grain
// visible, letters size pixels high. The same text gives the same picture.
func Draw(t testing.TB, text string, size float64) *image.Gray {
	t.Helper()
	parsed, err := opentype.Parse(gomono.TTF)
	if err != nil {
		t.Fatal(err)
	}
	face, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		t.Fatal(err)
	}
	defer face.Close()
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	pen := font.Drawer{Face: face, Src: image.NewUniform(color.Gray{Y: 40})}
	width, height := 0, int(size*1.4)
	for _, line := range lines {
		width = max(width, pen.MeasureString(line).Ceil())
	}
	margin := int(2 * size)
	page := image.NewGray(image.Rect(0, 0, width+2*margin, len(lines)*height+2*margin))
	paper(page)
	pen.Dst = page
	for i, line := range lines {
		pen.Dot = fixed.P(margin, margin+(i+1)*height-height/4)
		pen.DrawString(line)
	}
	return page
}

func paper(page *image.Gray) {
	grain := rand.New(rand.NewPCG(1, 2))
	for y := range page.Rect.Dy() {
		for x := range page.Rect.Dx() {
			shadow := 40 * x / page.Rect.Dx()
			page.Pix[y*page.Stride+x] = uint8(250 - shadow - grain.IntN(8))
		}
	}
}

// JPEG is the picture as a JPEG file.
func JPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := jpeg.Encode(&file, img, &jpeg.Options{Quality: 85}); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// PNG is the picture as a PNG file.
func PNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := png.Encode(&file, img); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

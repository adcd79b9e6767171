package picture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/receipt/picture"
	"github.com/tidegate/tidegate/receipt/receipttest"
)

const million = 1_000_000

// corner is a picture that is white but for its top left corner.
func corner(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			if x < w/2 && y < h/2 {
				img.Set(x, y, color.Black)
			} else {
				img.Set(x, y, color.White)
			}
		}
	}
	return img
}

func decode(t testing.TB, data []byte) *image.RGBA {
	t.Helper()
	file, err := picture.Open(data, million)
	if err != nil {
		t.Fatal(err)
	}
	img, err := file.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// dark tells which corners are dark, clockwise from the top left.
func dark(img *image.RGBA) (corners [4]bool) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	for i, p := range []image.Point{{w / 4, h / 4}, {3 * w / 4, h / 4}, {3 * w / 4, 3 * h / 4}, {w / 4, 3 * h / 4}} {
		corners[i] = img.RGBAAt(p.X, p.Y).R < 128
	}
	return corners
}

func webp(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDecodesEveryKind(t *testing.T) {
	img := corner(60, 40)
	transparent := image.NewNRGBA(image.Rect(0, 0, 60, 40))
	for y := range 20 {
		for x := range 30 {
			transparent.Set(x, y, color.Black)
		}
	}
	for name, data := range map[string][]byte{
		"JPEG": receipttest.JPEG(t, img), "PNG": receipttest.PNG(t, img), "transparent PNG": receipttest.PNG(t, transparent),
		"lossy WebP": webp(t, "lossy.webp"), "lossless WebP": webp(t, "lossless.webp"), "extended WebP": webp(t, "alpha.webp"),
	} {
		got := decode(t, data)
		if got.Rect != image.Rect(0, 0, 60, 40) || dark(got) != [4]bool{true, false, false, false} {
			t.Errorf("%s: %v, dark at %v", name, got.Rect, dark(got))
		}
	}
}

// withOrientation puts an EXIF note into a JPEG file.
func withOrientation(file []byte, note uint16, order binary.AppendByteOrder, mark string) []byte {
	tiff := []byte(mark)
	tiff = order.AppendUint16(tiff, 42)
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 2)
	tiff = append(tiff, make([]byte, 12)...) // some other entry
	tiff = order.AppendUint16(tiff, 0x0112)
	tiff = order.AppendUint16(tiff, 3)
	tiff = order.AppendUint32(tiff, 1)
	tiff = order.AppendUint16(tiff, note)
	tiff = append(tiff, 0, 0, 0, 0, 0, 0)
	segment := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{}, file[:2]...)
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(segment)+2))
	out = append(out, segment...)
	return append(out, file[2:]...)
}

func TestTurnsUpright(t *testing.T) {
	file := receipttest.JPEG(t, corner(60, 40))
	for note, c := range map[uint16]struct {
		w, h int
		dark int // which corner, clockwise from the top left
	}{1: {60, 40, 0}, 2: {60, 40, 1}, 3: {60, 40, 2}, 4: {60, 40, 3}, 5: {40, 60, 0}, 6: {40, 60, 1}, 7: {40, 60, 2}, 8: {40, 60, 3}, 9: {60, 40, 0}, 0: {60, 40, 0}} {
		want := [4]bool{}
		want[c.dark] = true
		for mark, order := range map[string]binary.AppendByteOrder{"MM": binary.BigEndian, "II": binary.LittleEndian} {
			got := decode(t, withOrientation(file, note, order, mark))
			if got.Rect != image.Rect(0, 0, c.w, c.h) || dark(got) != want {
				t.Errorf("note %d, %s: %v, dark at %v, want %v", note, mark, got.Rect, dark(got), want)
			}
		}
	}
}

// bomb is a PNG header that promises a picture of that size.
func bomb(w, h uint32) []byte {
	ihdr := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	ihdr = append(binary.BigEndian.AppendUint32(ihdr, h), 8, 6, 0, 0, 0)
	file := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n"), 13)
	return binary.BigEndian.AppendUint32(append(file, ihdr...), crc32.ChecksumIEEE(ihdr))
}

// canvas makes an extended WebP file say that its canvas has that size.
func canvas(file []byte, w, h int) []byte {
	file = bytes.Clone(file)
	at := bytes.Index(file, []byte("VP8X")) + 12
	put := func(b []byte, n int) { b[0], b[1], b[2] = byte(n-1), byte((n-1)>>8), byte((n-1)>>16) }
	put(file[at:], w)
	put(file[at+3:], h)
	return file
}

// hidden puts the frame of a simple WebP file into an extended one with a small
// canvas, and makes the frame say that it has that size.
func hidden(simple []byte, w, h uint16) []byte {
	frame := bytes.Clone(simple[12:])
	binary.LittleEndian.PutUint16(frame[14:], w)
	binary.LittleEndian.PutUint16(frame[16:], h)
	file := append([]byte("RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x08\x00\x00"), frame...)
	binary.LittleEndian.PutUint32(file[4:], uint32(len(file)-8))
	return file
}

func TestRefusals(t *testing.T) {
	var animated bytes.Buffer
	if err := gif.Encode(&animated, corner(9, 9), nil); err != nil {
		t.Fatal(err)
	}
	good := receipttest.JPEG(t, corner(60, 40))
	for name, c := range map[string]struct {
		data []byte
		want error
		says string
	}{
		"nothing":                    {nil, picture.ErrKind, ""},
		"text":                       {[]byte("TOTAL 9.00"), picture.ErrKind, ""},
		"GIF":                        {animated.Bytes(), picture.ErrKind, ""},
		"SVG":                        {[]byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), picture.ErrKind, ""},
		"PDF":                        {[]byte("%PDF-1.7"), picture.ErrKind, ""},
		"a JPEG's first bytes":       {[]byte("\xff\xd8\xff"), picture.ErrUndecoded, "JPEG"},
		"a PNG's first bytes":        {[]byte("\x89PNG\r\n\x1a\n"), picture.ErrUndecoded, "PNG"},
		"a WebP's first bytes":       {[]byte("RIFF\x00\x00\x00\x00WEBP"), picture.ErrUndecoded, "WebP"},
		"half a JPEG":                {good[:len(good)/2], picture.ErrUndecoded, "JPEG"},
		"a huge PNG":                 {bomb(100_000, 100_000), picture.ErrTooLarge, "100000 × 100000"},
		"the largest PNG":            {bomb(1<<31-1, 1<<31-1), picture.ErrUndecoded, ""},
		"one pixel too many":         {bomb(1001, 1000), picture.ErrTooLarge, "at most 1.0 million"},
		"a PNG of the right size":    {bomb(1000, 1000), picture.ErrUndecoded, "PNG"},
		"a WebP with a huge canvas":  {canvas(webp(t, "alpha.webp"), 16000, 16000), picture.ErrTooLarge, "16000"},
		"a WebP with a hidden frame": {hidden(webp(t, "lossy.webp"), 2000, 1000), picture.ErrTooLarge, "2000 × 1000"},
		"an animated WebP":           {append([]byte("RIFF\x30\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x08\x00\x00\x08\x00\x00ANIM\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0), picture.ErrUndecoded, "animated"},
	} {
		file, err := picture.Open(c.data, million)
		if err == nil {
			_, err = file.Decode()
		}
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v with %q", name, err, c.want, c.says)
		}
	}
}

func TestShrinksLargePictures(t *testing.T) {
	file, err := picture.Open(receipttest.JPEG(t, image.NewGray(image.Rect(0, 0, 4000, 200))), 40*million)
	if err != nil {
		t.Fatal(err)
	}
	img, err := file.Decode()
	if err != nil || img.Rect != image.Rect(0, 0, 3000, 150) {
		t.Errorf("%v, %v", img.Rect, err)
	}
	small, err := picture.JPEG(img, 2048)
	if err != nil {
		t.Fatal(err)
	}
	size, err := jpeg.DecodeConfig(bytes.NewReader(small))
	if err != nil || size.Width != 2048 || size.Height != 102 {
		t.Errorf("%+v, %v", size, err)
	}
}

func TestShrinkingKeepsWhatThereIs(t *testing.T) {
	for _, size := range []image.Point{{6100, 100}, {3001, 10}, {9500, 2}, {1, 7000}} {
		file, err := picture.Open(receipttest.JPEG(t, corner(size.X, size.Y)), 40*million)
		if err != nil {
			t.Fatal(err)
		}
		img, err := file.Decode()
		if err != nil || max(img.Rect.Dx(), img.Rect.Dy()) != 3000 || min(img.Rect.Dx(), img.Rect.Dy()) < 1 {
			t.Errorf("%v became %v, %v", size, img.Rect, err)
		}
		if size.X > 3001 && size.Y > 2 && dark(img) != [4]bool{true, false, false, false} {
			t.Errorf("%v: dark at %v", size, dark(img))
		}
	}
}

func TestJPEGSaysNothingOfWhereItWasTaken(t *testing.T) {
	file := withOrientation(receipttest.JPEG(t, corner(60, 40)), 6, binary.BigEndian, "MM")
	out, err := picture.JPEG(decode(t, file), 2048)
	if err != nil || bytes.Contains(out, []byte("Exif")) {
		t.Errorf("%v, the EXIF data is still there", err)
	}
}

func TestFlattenEvensOutTheLight(t *testing.T) {
	page := image.NewGray(image.Rect(0, 0, 400, 100))
	for y := range 100 {
		for x := range 400 {
			v := 60 + x/3 // a shadow at the left
			if y%20 < 3 {
				v /= 2 // print
			}
			page.Pix[y*page.Stride+x] = uint8(v)
		}
	}
	flat := picture.Flatten(page, 20)
	for _, x := range []int{30, 370} {
		if paper, ink := flat.GrayAt(x, 50).Y, flat.GrayAt(x, 41).Y; paper < 220 || ink > 160 {
			t.Errorf("at %d: paper %d, ink %d", x, paper, ink)
		}
	}
	if got := picture.Scale(page, 2.5).Rect; got != image.Rect(0, 0, 1000, 250) {
		t.Errorf("scaled to %v", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"lossy.webp", "lossless.webp", "alpha.webp"} {
		f.Add(webp(f, name))
	}
	f.Add(receipttest.JPEG(f, corner(16, 8)))
	f.Add(withOrientation(receipttest.JPEG(f, corner(16, 8)), 5, binary.BigEndian, "MM"))
	f.Add(receipttest.PNG(f, corner(16, 8)))
	f.Add(bomb(5, 5))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 10_000
		file, err := picture.Open(data, limit)
		if err == nil {
			var img *image.RGBA
			if img, err = file.Decode(); err == nil && img.Rect.Dx()*img.Rect.Dy() > limit {
				t.Errorf("%v is larger than allowed", img.Rect)
			}
		}
		if err != nil && !errors.Is(err, picture.ErrKind) && !errors.Is(err, picture.ErrTooLarge) && !errors.Is(err, picture.ErrUndecoded) {
			t.Errorf("an error of no kind: %v", err)
		}
	})
}

// A gray picture keeps its shades, also where it is a part of another; what is transparent is white.
func TestGray(t *testing.T) {
	full := image.NewGray(image.Rect(0, 0, 5, 4))
	for i := range full.Pix {
		full.Pix[i] = uint8(i)
	}
	part := picture.Gray(full.SubImage(image.Rect(1, 2, 4, 4)))
	if want := []uint8{11, 12, 13, 16, 17, 18}; part.Rect != image.Rect(0, 0, 3, 2) || !slices.Equal(part.Pix, want) {
		t.Errorf("a part of a gray picture is %v %v, want %v", part.Rect, part.Pix, want)
	}
	colours := image.NewNRGBA(image.Rect(7, 7, 9, 8))
	colours.SetNRGBA(8, 7, color.NRGBA{A: 255})
	if got := picture.Gray(colours); got.Rect != image.Rect(0, 0, 2, 1) || !slices.Equal(got.Pix, []uint8{255, 0}) {
		t.Errorf("nothing beside black is %v %v, want white beside black", got.Rect, got.Pix)
	}
}

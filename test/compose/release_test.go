package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tidegate/tidegate/internal/testenv"
)

// What is released says which version it is, and has what a user must be given with it.
func TestReleasesSayTheirVersion(t *testing.T) {
	var release struct {
		Version int
		Builds  []struct {
			Main, Binary string
			Ldflags      []string
		}
		Archives []struct{ Files []string }
	}
	if err := yaml.Unmarshal(testenv.Must(os.ReadFile(filepath.Join(root, ".goreleaser.yaml"))), &release); err != nil {
		t.Fatal(err)
	}
	if release.Version != 2 || len(release.Builds) != 1 || len(release.Archives) != 1 {
		t.Fatalf("%+v", release)
	}
	for _, file := range append(release.Archives[0].Files, release.Builds[0].Main, "LICENSE", "SECURITY.md", "CONTRIBUTING.md") {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Error(err)
		}
	}
	image := string(testenv.Must(os.ReadFile(filepath.Join(root, "deploy", "Dockerfile"))))
	for what, where := range map[string]string{
		"-X main.version={{ .Version }}":            strings.Join(release.Builds[0].Ldflags, " "),
		`-X main.version=$VERSION"`:                 image,
		"org.opencontainers.image.version=$VERSION": image,
	} {
		if !strings.Contains(where, what) {
			t.Errorf("%q is not in %s", what, where)
		}
	}
	// Each stage of an image knows only the arguments that it names itself.
	for _, stage := range strings.Split(image, "\nFROM ")[1:] {
		if !strings.Contains(stage, "\nARG VERSION=dev\n") {
			t.Errorf("a stage has no version: FROM %s", stage)
		}
	}
	if version := loadExample(t).Services["tidegate"].Build.Args["VERSION"]; version == nil || *version != "dev" {
		t.Errorf("compose builds version %v", version)
	}
}

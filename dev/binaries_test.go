package dev

import (
	"errors"
	"strings"
	"testing"
)

func TestNoPostgresSaysWhatToInstall(t *testing.T) {
	defer func(p []string) { places = p }(places)
	places = []string{t.TempDir()}
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	_, err := StartPostgres(t.Context(), PostgresConfig{Dir: dir})
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("got %v, want ErrNoPostgres", err)
	}
	for _, hint := range []string{"apt-get install postgresql", "brew install postgresql@17", "--database-url"} {
		if !strings.Contains(err.Error(), hint) {
			t.Errorf("%q lacks %q", err, hint)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
}

func TestPostgresIsFoundOffThePATH(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if got := installations(); len(got) == 0 {
		t.Errorf("nothing found in %q", places)
	}
}

func TestMajorVersion(t *testing.T) {
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": 15,
		"postgres (PostgreSQL) 17.2 (Homebrew)":                17,
		"postgres (PostgreSQL) 18beta1":                        18,
		"some other program 15.1":                              0,
	} {
		if got, _ := majorVersion(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

package file_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

func TestAFileIsThereWhenItIsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "backup.tar")
	if err := os.WriteFile(path, []byte("yesterday"), 0o644); err != nil {
		t.Fatal(err)
	}
	holds := func(want string, mode fs.FileMode) {
		t.Helper()
		got, err := os.ReadFile(path)
		info, _ := os.Stat(path)
		if err != nil || string(got) != want || info.Mode().Perm() != mode {
			t.Errorf("it holds %q, %v, %v; want %q", got, info.Mode(), err, want)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("beside it stays %v", entries)
		}
	}
	half := create(t, path)
	half.Discard()
	holds("yesterday", 0o644)

	w := create(t, path)
	if got, _ := os.ReadFile(path); string(got) != "yesterday" {
		t.Errorf("the old one is gone before the new one is whole: %q", got)
	}
	if err := w.Keep(); err != nil {
		t.Fatal(err)
	}
	w.Discard()
	holds("today", 0o600)
}

func create(t *testing.T, path string) *file.Whole {
	t.Helper()
	w, err := file.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("today"); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWhereNoFileCanBe(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing", "backup.tar")} {
		if w, err := file.Create(path); err == nil {
			w.Discard()
			t.Errorf("%s was begun", path)
		}
	}
}

package file

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhoMayWriteTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(path string) (*Watched[string], error) {
		return Watch(path, 100, func(data []byte, _ string) (string, error) { return string(data), nil })
	}
	for _, c := range []struct {
		sentence, want string
		mode           os.FileMode
	}{
		{"its owner alone", "", 0o644},
		{"its group too", "chmod go-w", 0o664},
		{"anybody", "chmod go-w", 0o646},
	} {
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := open(path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.sentence, err)
		}
	}
	if os.Getuid() == 0 {
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 12345, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := open(path); err == nil || !strings.Contains(err.Error(), "chown it") {
			t.Errorf("another user, who is not root: %v", err)
		}
	}
	if _, err := open(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := open(path + ".gone"); err == nil || strings.Count(err.Error(), path) != 1 {
		t.Errorf("no file: %v", err)
	}
}

package file_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	full := write("full", strings.Repeat("a", 2<<10))
	over := write("over", strings.Repeat("a", 2<<10+1))
	marked := write("marked", "\ufeffversion: 1")
	none := filepath.Join(dir, "none")
	for sentence, tc := range map[string]struct {
		path string
		want string // the text, or the error
	}{
		"a file as large as may be":        {full, strings.Repeat("a", 2<<10)},
		"a byte more":                      {over, over + ": larger than 2 KiB"},
		"a file that never ends":           {"/dev/zero", "/dev/zero: larger than 2 KiB"},
		"a byte order mark":                {marked, "version: 1"},
		"nothing there":                    {none, none + ": no such file or directory"},
		"a directory":                      {dir, dir + ": is a directory"},
		"something below what is no place": {full + "/x", full + "/x: not a directory"},
	} {
		data, err := file.Read(tc.path, 2<<10)
		got := string(data)
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: got %.60q, want %.60q", sentence, got, tc.want)
		}
	}
	if _, err := file.Read(none, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

func TestFrom(t *testing.T) {
	if _, err := file.From(strings.NewReader(strings.Repeat("a", 3<<20)), "stdin", 2<<20); err == nil || err.Error() != "stdin: larger than 2 MiB" {
		t.Errorf("too much: %v", err)
	}
	if _, err := file.From(iotest.ErrReader(errors.New("torn")), "stdin", 1); err == nil || err.Error() != "stdin: torn" {
		t.Errorf("a reader that fails: %v", err)
	}
}

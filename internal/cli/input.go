package cli

import (
	"context"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

// input is a file that the command line names.
type input struct {
	// name is what errors and reports call it.
	name string
	data []byte
}

// input reads a file of at most limit bytes; - is standard input, which can be read once. An interrupt ends
// the wait for whoever writes it.
func (s *settings) input(ctx context.Context, path string, limit int) (input, error) {
	in := input{name: path}
	read := func() ([]byte, error) { return file.Read(path, limit) }
	switch {
	case path == "":
		return in, usagef("the name of a file is empty")
	case path == "-" && s.stdin:
		return in, usagef("two files are -, and stdin can be read once; name one of them")
	case path == "-":
		in.name, s.stdin = "stdin", true
		read = func() ([]byte, error) { return file.From(s.program.In, in.name, limit) }
	}
	done := make(chan error, 1)
	go func() {
		var err error
		in.data, err = read()
		done <- err
	}()
	select {
	case <-ctx.Done():
		return input{}, interrupted()
	case err := <-done:
		return in, usage(err)
	}
}

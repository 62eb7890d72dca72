// Package strictyaml reads a proto message from a file of YAML that anyone may have written. What is
// unknown, there twice, or would go unread is an error of one line.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
)

// File is how a file is read.
type File struct {
	// Path is what errors call it.
	Path string
	// Max bounds it, in bytes.
	Max int
	// Rules are what the message is held against; an error names the line.
	Rules protoyaml.Validator
}

// Unmarshal reads a message. An error begins with PATH:LINE:COLUMN, or with PATH alone where it is about the
// whole. A file that holds nothing, or comments alone, leaves the message empty: the rules don't see it.
func (f File) Unmarshal(data []byte, m proto.Message) error {
	if len(data) > f.Max {
		return fmt.Errorf("%s: larger than %d KiB", f.Path, f.Max>>10)
	}
	if !utf8.Valid(data) {
		return fmt.Errorf("%s: it is not UTF-8", f.Path)
	}
	// protoyaml looks up the line that an error is about: an empty document stands on the one after the last.
	data = []byte(lineBreaks().Replace(string(data)) + "\n\n")
	if err := oneDocument(data); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if err := (protoyaml.UnmarshalOptions{Path: f.Path, Validator: f.Rules}).Unmarshal(data, m); err != nil {
		return f.oneLine(err)
	}
	return nil
}

// lineBreaks makes one of all that YAML 1.1 takes for a line break (4.2): protoyaml knows no others, and the
// lines that errors name are then those of an editor.
func lineBreaks() *strings.Replacer {
	return strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")
}

// oneDocument refuses what would go unnoticed: a field that is there twice, and a second document.
func oneDocument(data []byte) error {
	in := yaml.NewDecoder(bytes.NewReader(data))
	var whole any
	if err := in.Decode(&whole); err != nil && !errors.Is(err, io.EOF) {
		return errors.New(words(err))
	}
	if err := in.Decode(&whole); !errors.Is(err, io.EOF) {
		return errors.New("it holds more than one document")
	}
	return nil
}

// words are an error in one line.
func words(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// oneLine leaves of an error over several lines, which quote the file, the first that is wrong.
func (f File) oneLine(err error) error {
	var wrong []string
	for line := range strings.Lines(err.Error()) {
		if strings.HasPrefix(line, f.Path+":") {
			wrong = append(wrong, strings.TrimSpace(line))
		}
	}
	switch len(wrong) {
	case 0:
		return fmt.Errorf("%s: %s", f.Path, words(err))
	case 1:
		return errors.New(wrong[0])
	}
	return fmt.Errorf("%s (and %d more)", wrong[0], len(wrong)-1)
}

// Package question turns the words of a command line into a CreateMeasurementRequest: the grammar
//
//	dns NAME [TYPE] [CLASS] [@SERVER] [from WHERE] [+option]...
//	tcp HOST:PORT [from WHERE]
//	tls HOST[:PORT] [from WHERE]
//	http URL [from WHERE]
//	origin URL [from WHERE]
//
// in any order. It dials nobody, and reads no file but that of a profile. Every error is one line that names what was wrong and what to do.
package question

import (
	"errors"
	"fmt"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Question is what the words ask.
type Question struct {
	// Spec is what to look at.
	Spec *pb.Spec
	// From is the WHERE of the words; empty if they name none.
	From string
	// Short says that +short was among the words: the distinct answers alone.
	Short bool
}

// Where reads the words of a command that takes nothing but [from WHERE].
func Where(words []string) (string, error) {
	w, err := split(words, func([]string, string) bool { return false })
	switch {
	case err != nil:
		return "", err
	case len(w.plain) > 0:
		return "", fmt.Errorf("unexpected word %s; only 'from WHERE' can follow", quote(w.plain[0]))
	case w.asked || len(w.options) > 0:
		return "", errors.New("@SERVER and +options belong to dns; only 'from WHERE' can follow")
	}
	return w.from, nil
}

// splitHost splits the words of a check that has exactly one word of its own.
func splitHost(check, form string, args []string) (words, error) {
	w, err := split(args, func(plain []string, _ string) bool { return len(plain) == 0 })
	switch {
	case err != nil:
		return w, err
	case len(w.plain) == 0:
		return w, fmt.Errorf("%s needs %s", check, form)
	case len(w.plain) > 1:
		return w, fmt.Errorf("unexpected word %s; %s takes one %s", quote(w.plain[1]), check, form)
	case w.asked:
		return w, fmt.Errorf("@SERVER belongs to dns; %s asks the agents' own resolvers", check)
	case len(w.options) > 0:
		return w, fmt.Errorf("%s belongs to dns; %s takes flags, which begin with --", quote(w.options[0]), check)
	}
	return w, nil
}

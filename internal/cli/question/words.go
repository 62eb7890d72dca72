package question

import (
	"errors"
	"fmt"
	"strings"
)

// quoted is how many characters of a bad word an error repeats.
const quoted = 48

// words are the words of a command line, told apart.
type words struct {
	plain    []string // in order
	resolver string   // without the @
	asked    bool     // whether there was an @
	from     string
	options  []string // those that begin with +
}

// split tells the words apart. After "from" comes one word of WHERE, and then more of it ("from New
// York") up to an @, a + or a word that wants says is the command's own.
func split(args []string, wants func(plain []string, word string) bool) (words, error) {
	var w words
	for i := 0; i < len(args); i++ {
		arg := args[i]
		var err error
		switch {
		case arg == "from":
			i, err = w.where(args, i, wants)
		case strings.HasPrefix(arg, "@"):
			err = w.at(arg[1:])
		case strings.HasPrefix(arg, "+"):
			w.options = append(w.options, arg)
		default:
			w.plain = append(w.plain, arg)
		}
		if err != nil {
			return w, err
		}
	}
	return w, nil
}

// where reads WHERE after the "from" at args[i] and returns the index of its last word.
func (w *words) where(args []string, i int, wants func([]string, string) bool) (int, error) {
	if w.from != "" {
		return i, errors.New("'from' is there twice; join places with a comma: from Germany,JP")
	}
	if i+1 == len(args) || strings.TrimSpace(args[i+1]) == "" {
		return i, errors.New("'from' needs a place, such as: from Germany+AWS,JP")
	}
	i++
	place := []string{strings.TrimSpace(args[i])}
	for i+1 < len(args) && w.more(args[i+1], wants) {
		i++
		place = append(place, args[i])
	}
	w.from = strings.Join(place, " ")
	return i, CheckWhere("from", w.from)
}

// more says whether word is one more word of a place.
func (w *words) more(word string, wants func([]string, string) bool) bool {
	return word != "" && word != "from" && word[0] != '@' && word[0] != '+' && !wants(w.plain, word)
}

// at takes an @SERVER.
func (w *words) at(s string) error {
	if w.asked {
		return errors.New("@SERVER is there twice; one question goes to one server")
	}
	w.resolver, w.asked = s, true
	return nil
}

// CheckWhere says what is wrong with the shape of a WHERE that name, a flag or variable, gives. The
// coordinator alone knows which places there are.
func CheckWhere(name, where string) error {
	if strings.TrimSpace(where) == "" {
		return fmt.Errorf("%s is empty; name a place, such as Germany+AWS,JP, or leave it out for world", name)
	}
	if strings.ContainsFunc(where, isControl) {
		return fmt.Errorf("%s %s holds a control character; name a place, such as Germany+AWS,JP", name, quote(where))
	}
	for item := range strings.SplitSeq(where, ",") {
		for term := range strings.SplitSeq(item, "+") {
			if strings.Trim(term, " ~") == "" {
				return fmt.Errorf("%s %s has an empty part; write it as Germany+AWS,JP: + is AND, a comma a list", name, quote(where))
			}
		}
	}
	return nil
}

// isControl says whether r can steer a terminal.
func isControl(r rune) bool { return r < 0x20 || (r >= 0x7f && r < 0xa0) }

// quote repeats a bad word, shortened and with control characters escaped.
func quote(s string) string {
	if r := []rune(s); len(r) > quoted {
		return fmt.Sprintf("%+q…", string(r[:quoted]))
	}
	return fmt.Sprintf("%q", s)
}

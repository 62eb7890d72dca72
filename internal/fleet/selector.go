// Package fleet knows the agents: who is alive, which ones a selector means, and which of those to
// ask so that a few of them see as much of the world as they can.
package fleet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	maxSelector = 1024 // bytes
	maxTerms    = 64
)

// Selector chooses agents by where they stand: a list of alternatives, each of them terms that must
// all hold.
type Selector struct{ any [][]term }

// term is one word of a selector: "world", or something that a vantage has.
type term struct {
	word   string // lower case, with its "~"
	needle string // what is looked for in an agent's words; that of "world" is in all of them
	asn    uint32 // of "AS64500", otherwise 0
}

// ParseSelector reads a selector: words for a region, country (code or English name), city, provider,
// "AS64500", agent, or label ("key=value", "key" or "value"); "+" is AND, "," separates alternatives,
// "~" before a word makes a part of it enough, "world" is everywhere. Case does not matter. "" is "world".
func ParseSelector(text string) (Selector, error) {
	if strings.TrimSpace(text) == "" {
		text = "world"
	}
	if len(text) > maxSelector {
		return Selector{}, fmt.Errorf("longer than %d bytes", maxSelector)
	}
	var s Selector
	terms := 0
	for alternative := range strings.SplitSeq(text, ",") {
		var all []term
		for word := range strings.SplitSeq(alternative, "+") {
			t, err := parseTerm(strings.TrimSpace(word))
			if err != nil {
				return Selector{}, err
			}
			all = append(all, t)
			terms++
		}
		s.any = append(s.any, all)
	}
	if terms > maxTerms {
		return Selector{}, fmt.Errorf("%d words; at most %d", terms, maxTerms)
	}
	return s, nil
}

func parseTerm(word string) (term, error) {
	t := term{word: strings.ToLower(word)}
	part, ok := strings.CutPrefix(t.word, "~")
	switch {
	case part == "":
		return term{}, errors.New(`an empty word; write "a+b" for both, "a,b" for either`)
	case strings.Contains(part, separator):
		return term{}, errors.New("a NUL in a word")
	case ok:
		t.needle = part
		return t, nil
	case part != "world":
		t.needle = separator + part + separator
	}
	if digits, ok := strings.CutPrefix(t.word, "as"); ok {
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil {
			t.asn = uint32(n)
		}
	}
	return t, nil
}

// Alternatives are the items of the list, in order, each as a selector of its own.
func (s Selector) Alternatives() []Selector {
	items := make([]Selector, len(s.any))
	for i, all := range s.any {
		items[i] = Selector{any: [][]term{all}}
	}
	return items
}

// String writes the selector as ParseSelector reads it, in lower case.
func (s Selector) String() string {
	items := make([]string, len(s.any))
	for i, all := range s.any {
		words := make([]string, len(all))
		for k, t := range all {
			words[k] = t.word
		}
		items[i] = strings.Join(words, "+")
	}
	return strings.Join(items, ",")
}

// Matches tells whether the selector means an agent.
func (s Selector) Matches(agent string, v *pb.Vantage) bool { return s.matches(wordsOf(agent, v)) }

func (s Selector) matches(w words) bool {
	for _, all := range s.any {
		ok := true
		for _, t := range all {
			ok = ok && t.matches(w)
		}
		if ok {
			return true
		}
	}
	return false
}

// words are what a selector can say of an agent: all of it in lower case, with a separator around each. To look through
// one text takes a tenth of the time that it takes to look into many.
type words struct {
	asn uint32
	all string
}

// separator is in no term.
const separator = "\x00"

func wordsOf(agent string, v *pb.Vantage) words {
	var all strings.Builder
	all.WriteString(separator)
	add := func(word string) {
		if word != "" {
			all.WriteString(strings.ToLower(word) + separator)
		}
	}
	for _, value := range []string{v.GetRegion(), v.GetCountry(), countryName(v.GetCountry()), v.GetCity(), v.GetProvider(), agent} {
		add(value)
	}
	for key, value := range v.GetLabels() {
		add(key + "=" + value)
		add(key)
		add(value)
	}
	return words{v.GetAsn(), all.String()}
}

func (t term) matches(w words) bool {
	return t.asn != 0 && t.asn == w.asn || strings.Contains(w.all, t.needle)
}

// countryName is the English name of an ISO 3166-1 alpha-2 code, "" if there is none.
func countryName(code string) string {
	region, err := language.ParseRegion(code)
	if err != nil {
		return ""
	}
	return display.English.Regions().Name(region)
}

// Package allowlist reads allowlist files: which places should get in at a door, and which should not.
// It dials nobody. The JSON Schema of the files stands beside it.
package allowlist

import (
	_ "embed" // the schema
	"fmt"
	"slices"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// MaxSize bounds a file, in bytes.
const MaxSize = 1 << 20

// The bounds of what is in one.
const (
	maxRules = 256
	maxName  = 100 // bytes
)

// Schema is the JSON Schema (2020-12) of allowlist files. It knows their shape; that names are there
// once, and that selectors and targets can be read, the reader alone knows.
//
//go:embed schema.json
var Schema []byte

// Rule is one door: a target, and who should find it open or shut.
type Rule struct {
	// Name is what the rule is called: as the file says, or the target.
	Name string
	// Line is where it begins.
	Line int
	// Doors are what is expected of it, at least one, the open one first.
	Doors []Door
}

// Door is one expectation of a rule: a question to ask, and whom.
type Door struct {
	// Expect is how the door should be found.
	Expect pb.Reachability
	// Selectors say from where.
	Selectors []Selector
	// Question is what to ask; its From is all of the selectors.
	Question *question.Question
}

// Means says whether an agent is asked.
func (d Door) Means(a *pb.Agent) bool {
	return slices.ContainsFunc(d.Selectors, func(s Selector) bool { return s.Matches(a.GetId(), a.GetVantage()) })
}

// Selector is a word of the file that means agents.
type Selector struct {
	fleet.Selector

	// Text is the word as it is written.
	Text string
	// Line and Column are where it stands.
	Line, Column int
}

// Plan holds the rules against the agents that there are: every item of a selector has to mean
// somebody, and nobody is asked two things by one rule. An error of somebody missing is ErrNobody's.
func Plan(path string, rules []Rule, agents []*pb.Agent) error {
	for _, r := range rules {
		asked := map[string]place{}
		for _, d := range r.Doors {
			for _, s := range d.Selectors {
				if err := s.somebody(path, r, agents); err != nil {
					return err
				}
				for _, a := range agents {
					if !s.Matches(a.GetId(), a.GetVantage()) {
						continue
					}
					if other, ok := asked[a.GetId()]; ok && other.expect != d.Expect {
						return fmt.Errorf("%s:%d:%d: rule %q: %s (agent %s) should be %s by %q and %s by %q in line %d; take it out of one of them",
							path, s.Line, s.Column, r.Name, a.GetVantage().GetRegion(), a.GetId(),
							word(d.Expect), s.Text, word(other.expect), other.Text, other.Line)
					}
					asked[a.GetId()] = place{s, d.Expect}
				}
			}
		}
	}
	return nil
}

// place is the selector that means an agent, and what it should find.
type place struct {
	Selector

	expect pb.Reachability
}

// NobodyError says that a selector means no agent.
type NobodyError struct{ text string }

// Error says which one.
func (e *NobodyError) Error() string { return e.text }

// somebody says which item of the selector means no agent, if one does not.
func (s Selector) somebody(path string, r Rule, agents []*pb.Agent) error {
	for _, item := range s.Alternatives() {
		found := false
		for _, a := range agents {
			found = found || item.Matches(a.GetId(), a.GetVantage())
		}
		if !found {
			return &NobodyError{fmt.Sprintf("%s:%d:%d: rule %q: no agent matches %q; 'elsewhere agents' lists those that are there", path, s.Line, s.Column, r.Name, item)}
		}
	}
	return nil
}

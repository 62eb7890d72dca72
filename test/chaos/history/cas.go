package history

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// Outcome is how a call ended for who made it.
type Outcome int

// Outcomes.
const (
	Unknown Outcome = iota // no answer: it may have happened, now or later
	Done
	Refused
)

// Call is one call that decides something once, with the times when it was made and answered.
type Call struct {
	// Client is who made it; each makes one call at a time.
	Client     int
	Begin, End time.Time
	Object     string // the token, or the agent
	Outcome    Outcome
	Key        string // of a token: whose key it was to certify
	Epoch      uint64 // of a registration: what was answered
	Session    uint64
	AskedEpoch uint64 // what it came with; 0: a new spool
}

// linearizable tells whether calls could have happened one after the other, each at some time between its
// beginning and its end. A call without an answer may happen at any time after it was made, or never.
func linearizable(model porcupine.NondeterministicModel, calls []Call, patience time.Duration) porcupine.CheckResult {
	last := time.Time{}
	for _, c := range calls {
		if c.End.After(last) {
			last = c.End
		}
	}
	operations := make([]porcupine.Operation, 0, len(calls))
	for i, c := range calls {
		end, client := c.End, c.Client
		if c.Outcome == Unknown { // its client goes on under another number
			end, client = last.Add(time.Second), 1_000_000+i
		}
		operations = append(operations, porcupine.Operation{
			ClientId: client, Input: c, Output: c, Call: c.Begin.UnixNano(), Return: end.UnixNano(),
		})
	}
	checked := model.ToModel()
	checked.Partition = byObject
	return porcupine.CheckOperationsTimeout(checked, operations, patience)
}

// byObject takes a history apart: each token and each agent is decided for itself.
func byObject(all []porcupine.Operation) [][]porcupine.Operation {
	index := map[string]int{}
	var parts [][]porcupine.Operation
	for _, o := range all {
		name := o.Input.(Call).Object
		i, ok := index[name]
		if !ok {
			i = len(parts)
			index[name] = i
			parts = append(parts, nil)
		}
		parts[i] = append(parts[i], o)
	}
	return parts
}

// tokens is a one-time token: its state is the key that used it up, "" before. The same key may come again,
// since an answer can be lost.
func tokens() porcupine.NondeterministicModel {
	return porcupine.NondeterministicModel{
		Init: func() []any { return []any{""} },
		Step: func(state, input, _ any) []any {
			used, call := state.(string), input.(Call)
			mine := used == "" || used == call.Key
			switch {
			case call.Outcome == Unknown && mine:
				return []any{used, call.Key}
			case call.Outcome == Unknown:
				return []any{used}
			case (call.Outcome == Done) == mine:
				if mine {
					return []any{call.Key}
				}
				return []any{used}
			}
			return nil
		},
	}
}

// standing is the state of an agent: the newest epoch and the newest session that anybody was given.
type standing struct{ epoch, session uint64 }

// sessions is an agent's registration: each answer has a session that is higher than all before; who comes
// without an epoch is given one that is higher than all before. What was given without being heard of leaves a
// gap, which is allowed.
func sessions() porcupine.NondeterministicModel {
	return porcupine.NondeterministicModel{
		Init: func() []any { return []any{standing{}} },
		Step: func(state, input, _ any) []any {
			before, call := state.(standing), input.(Call)
			if call.Outcome != Done {
				return []any{before}
			}
			after := standing{before.epoch, call.Session}
			switch {
			case call.Session <= before.session:
				return nil
			case call.AskedEpoch == 0 || call.Epoch != call.AskedEpoch:
				if call.Epoch <= before.epoch {
					return nil
				}
				after.epoch = call.Epoch
			}
			return []any{after}
		},
	}
}

// Tokens says what is wrong with calls that used tokens up.
func Tokens(calls []Call, patience time.Duration) []string {
	return verdict("tokens", linearizable(tokens(), calls, patience))
}

// Sessions says what is wrong with registrations.
func Sessions(calls []Call, patience time.Duration) []string {
	return verdict("sessions", linearizable(sessions(), calls, patience))
}

func verdict(what string, result porcupine.CheckResult) []string {
	if result == porcupine.Ok {
		return nil
	}
	return []string{fmt.Sprintf("linearizability: %s: %s", what, result)}
}

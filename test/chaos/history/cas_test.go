package history

import (
	"testing"
	"time"
)

// from is a call that began and ended at these seconds.
func from(begin, end int, c Call) Call {
	c.Begin, c.End, c.Client = time.Unix(int64(begin), 0), time.Unix(int64(end), 0), begin
	return c
}

func TestTokens(t *testing.T) {
	use := func(key string, o Outcome) Call { return Call{Object: "t", Key: key, Outcome: o} }
	for _, c := range []struct {
		what  string
		calls []Call
		wrong bool
	}{
		{"one of two wins", []Call{from(1, 4, use("a", Done)), from(2, 5, use("b", Refused))}, false},
		{"both win", []Call{from(1, 4, use("a", Done)), from(2, 5, use("b", Done))}, true},
		{"the same key asks again", []Call{from(1, 2, use("a", Done)), from(3, 4, use("a", Done))}, false},
		{"an unused token is refused", []Call{from(1, 2, use("a", Refused))}, true},
		{"refused because of a call whose answer was lost", []Call{from(1, 2, use("a", Unknown)), from(3, 4, use("b", Refused))}, false},
		{"won because that call never happened", []Call{from(1, 2, use("a", Unknown)), from(3, 4, use("b", Done))}, false},
		{
			"won, refused to the winner's rival, won by a third",
			[]Call{from(1, 2, use("a", Unknown)), from(3, 4, use("b", Refused)), from(5, 6, use("c", Done))},
			true,
		},
		{"refused before it was used", []Call{from(1, 2, use("b", Refused)), from(3, 4, use("a", Done))}, true},
		{"two tokens are two", []Call{from(1, 2, use("a", Done)), from(3, 4, Call{Object: "u", Key: "b", Outcome: Done})}, false},
	} {
		if said := Tokens(c.calls, time.Minute); (len(said) > 0) != c.wrong {
			t.Errorf("%s: %q", c.what, said)
		}
	}
}

func TestSessions(t *testing.T) {
	given := func(asked, epoch, session uint64) Call {
		return Call{Object: "a", AskedEpoch: asked, Epoch: epoch, Session: session, Outcome: Done}
	}
	for _, c := range []struct {
		what  string
		calls []Call
		wrong bool
	}{
		{"an agent comes, and comes back", []Call{from(1, 2, given(0, 1, 1)), from(3, 4, given(1, 1, 2))}, false},
		{"the same session twice", []Call{from(1, 2, given(0, 1, 1)), from(3, 4, given(1, 1, 1))}, true},
		{"a session that goes back", []Call{from(1, 2, given(0, 1, 7)), from(3, 4, given(1, 1, 6))}, true},
		{"at the same time, in any order", []Call{from(1, 4, given(0, 2, 2)), from(2, 5, given(0, 1, 1))}, false},
		{"one after the other, in the wrong order", []Call{from(1, 2, given(0, 2, 2)), from(3, 4, given(0, 1, 1))}, true},
		{"two new spools with one epoch", []Call{from(1, 4, given(0, 1, 1)), from(2, 5, given(0, 1, 2))}, true},
		{"an epoch that nobody knows is replaced by a higher one", []Call{from(1, 2, given(0, 3, 1)), from(3, 4, given(9, 4, 2))}, false},
		{"it is replaced by one that was there", []Call{from(1, 2, given(0, 3, 1)), from(3, 4, given(9, 3, 2))}, true},
		{"what nobody heard of leaves a gap", []Call{from(1, 2, Call{Object: "a", Outcome: Unknown}), from(3, 4, given(0, 5, 5))}, false},
	} {
		if said := Sessions(c.calls, time.Minute); (len(said) > 0) != c.wrong {
			t.Errorf("%s: %q", c.what, said)
		}
	}
}

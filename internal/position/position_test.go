package position

import (
	"slices"
	"testing"

	"google.golang.org/grpc/metadata"
)

func TestWhatIsSeenIsSentAlong(t *testing.T) {
	var s Seen
	s.note(nil)
	s.note([]string{"log/1", "log/2"})
	if s.position != "" {
		t.Errorf("what is not one position is noted: %q", s.position)
	}
	if _, any := metadata.FromOutgoingContext(s.context(t.Context())); any {
		t.Error("nothing was seen, and it is sent along")
	}
	s.note([]string{"log/7"})
	sent, _ := metadata.FromOutgoingContext(s.context(t.Context()))
	if !slices.Equal(sent.Get(Header), []string{"log/7"}) {
		t.Errorf("%v is sent along", sent)
	}
}

package aggregate

import (
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// blockOf says how the way is shut: by the step, and by the variants of a handshake that stand beside it.
func (v *sight) blockOf() pb.BlockKind {
	if block := v.interference(); block != pb.BlockKind_BLOCK_KIND_UNSPECIFIED {
		return block
	}
	return blockOf(v.at())
}

// interference tells what a handshake that was reset or met silence ran into, by which of its variants
// got through to the server (docs/findings.md, How the way is shut). Another name or none at the same address: it
// was the name. Otherwise a small hello or small segments: it was the size.
func (v *sight) interference() pb.BlockKind {
	failure := v.at().GetFailure()
	if failure != pb.Failure_FAILURE_TLS_RESET && failure != pb.Failure_FAILURE_TLS_CLOSED && failure != pb.Failure_FAILURE_TLS_TIMEOUT {
		return pb.BlockKind_BLOCK_KIND_UNSPECIFIED
	}
	through := v.variantsThrough()
	switch named := through[pb.Variant_VARIANT_OTHER_NAME] || through[pb.Variant_VARIANT_NO_NAME]; {
	case named && failure == pb.Failure_FAILURE_TLS_TIMEOUT:
		return pb.BlockKind_BLOCK_KIND_SNI_DROP
	case named:
		return pb.BlockKind_BLOCK_KIND_SNI_RESET
	case through[pb.Variant_VARIANT_SMALL_HELLO] || through[pb.Variant_VARIANT_SMALL_SEGMENTS]:
		return pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP
	}
	return pb.BlockKind_BLOCK_KIND_UNSPECIFIED
}

// variantsThrough are the variants of a handshake that were answered by TLS.
func (v *sight) variantsThrough() map[pb.Variant]bool {
	through := map[pb.Variant]bool{}
	for _, i := range v.agent.variants[v.step] {
		s := v.agent.steps[i]
		if clean(s) || spokeTLS(s.GetFailure()) {
			through[s.GetVariant()] = true
		}
	}
	return through
}

// spokeTLS says whether a failure of a handshake is the server's own word. An alert is; something else
// than TLS may be a filter's.
func spokeTLS(f pb.Failure) bool {
	return answered(f) && f != pb.Failure_FAILURE_TLS_NOT_TLS && f != pb.Failure_FAILURE_TLS_MALFORMED
}

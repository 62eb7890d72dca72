package coordinator

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/flags"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// GetStatus implements pb.CoordinatorServiceServer.
func (s coordinatorService) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	bounds, err := s.history.Bounds(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	position, hash := s.store.Hash()
	return &pb.GetStatusResponse{
		Position:      position,
		StateHash:     hash,
		LogId:         s.history.ID(),
		Version:       flags.Version(),
		StartTime:     timestamppb.New(s.started),
		FirstPosition: bounds.First,
		LogBytes:      int64(bounds.Bytes),
	}, nil
}

package peer

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/state"
)

// kinds maps the kinds of errors to gRPC's codes, one to one, so that an error
// means on this member what it meant on the other.
var kinds = map[error]codes.Code{
	state.ErrInvalid:     codes.InvalidArgument,
	state.ErrForbidden:   codes.PermissionDenied,
	state.ErrNotFound:    codes.NotFound,
	state.ErrExists:      codes.AlreadyExists,
	state.ErrConflict:    codes.FailedPrecondition,
	state.ErrStale:       codes.Aborted,
	state.ErrUnavailable: codes.Unavailable,
}

// toWire gives an error its code.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	if code, known := kinds[state.Kind(err)]; known {
		return status.Error(code, err.Error())
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, err.Error())
}

// fromWire gives an error its kind back. What gRPC itself reports means that nobody
// can tell what became of the call.
func fromWire(member string, err error) error {
	if err == nil {
		return nil
	}
	answer, ok := status.FromError(err)
	if !ok {
		return err
	}
	for kind, code := range kinds {
		if code == answer.Code() && !errors.Is(kind, state.ErrUnavailable) {
			return state.Errorf(kind, "%s", answer.Message())
		}
	}
	if answer.Code() == codes.Unimplemented { // a member of the release before
		return fmt.Errorf("member %s: %s: %w", member, answer.Message(), errors.ErrUnsupported)
	}
	if answer.Code() == codes.Internal {
		return errors.New(answer.Message())
	}
	return state.Errorf(state.ErrUnavailable, "member %s: %s", member, answer.Message())
}

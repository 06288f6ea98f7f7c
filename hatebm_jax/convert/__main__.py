"""Command line: `python -m hatebm_jax.convert KIND SOURCE OUT.npz`.

KIND is tf2, mimicry or inception.
"""

import argparse
import sys

from hatebm_jax import convert, errors


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m hatebm_jax.convert",
    description="Converts other implementations' weights to an .npz.",
  )
  kinds = parser.add_subparsers(dest="kind", required=True)

  def add(name, help_text, source, read):
    kind = kinds.add_parser(name, help=help_text)
    kind.add_argument("source", help=source)
    kind.add_argument("out", help="The .npz to write.")
    kind.set_defaults(read=read)
    return kind

  tf2 = add(
    "tf2",
    "Reads a network of the TensorFlow 2 reference.",
    "The prefix of the checkpoint, such as ebm.ckpt.",
    lambda args: convert.from_tf2(args.source, args.out_factor),
  )
  tf2.add_argument(
    "--out_factor",
    type=float,
    help="The images of a generator or decoder are out_factor * tanh(...). It "
    "is 2 for synthesis and retrofit, and 1 for refinement. The default is 2, "
    "but 1 at 64 pixels.",
  )
  mimicry = add(
    "mimicry",
    "Reads a network of torch-mimicry's SN-GAN.",
    "The file netG.pth or netD.pth.",
    lambda args: convert.from_mimicry(args.source, args.key),
  )
  inception = add(
    "inception",
    "Reads the Inception network of 2015, for FID.",
    "The .pth of pytorch-fid or torch-fidelity.",
    lambda args: convert.from_inception(args.source, args.key),
  )
  for kind in (mimicry, inception):
    kind.add_argument(
      "--key",
      help="The name of the network in a file that holds several. A file with "
      "one network needs none.",
    )
  return parser


def main() -> int:
  """Converts a file; returns the exit status."""
  args = _parser().parse_args()
  try:
    module, variables = args.read(args)
    convert.save_npz(args.out, module, variables)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(f"{args.out}: {module}")
  return 0


if __name__ == "__main__":
  sys.exit(main())

"""Command line: `python -m hatebm_jax.convert KIND SOURCE OUT.npz`.

KIND is tf2, mimicry or inception.
"""

import argparse
import sys

import ml_collections

from hatebm_jax import config_flag, convert, errors


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m hatebm_jax.convert",
    description="Converts other implementations' weights to an .npz.",
    allow_abbrev=False,
  )
  kinds = parser.add_subparsers(dest="kind", required=True)

  def add(name, help_text, source, read):
    kind = kinds.add_parser(name, help=help_text, allow_abbrev=False)
    kind.add_argument("source", help=source)
    kind.add_argument("out", help="The .npz to write.")
    kind.set_defaults(read=read)
    return kind

  tf2 = add(
    "tf2",
    "Reads a network of the TensorFlow 2 reference.",
    "The prefix of the checkpoint, such as ebm.ckpt.",
    lambda args: convert.from_tf2(args.source, _out_factor(args)),
  )
  _add_out_factor(tf2.add_mutually_exclusive_group())
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


def _add_out_factor(group: argparse._MutuallyExclusiveGroup) -> None:
  """Adds the flags that say how large a generator's images are."""
  group.add_argument(
    "--out_factor",
    type=float,
    help="The images of a generator or decoder are out_factor * tanh(...). "
    "Their file does not tell it. The authors used 2 for synthesis and "
    "retrofit, and 1 for refinement.",
  )
  group.add_argument(
    "--config",
    help="The name or file of the experiment's config, which tells "
    "out_factor in place of --out_factor.",
  )


def _config(args: argparse.Namespace) -> ml_collections.ConfigDict:
  """Returns the config that the arguments describe."""
  return config_flag.load([f"--config={args.config}", *args.overrides])


def _out_factor(args: argparse.Namespace) -> float | None:
  """Returns the out_factor that the arguments tell, or None."""
  if args.config is None:
    return args.out_factor
  return _config(args).generator.out_factor


def _parse() -> argparse.Namespace:
  """Parses the command line; fields of a config are in `overrides`."""
  parser = _parser()
  args, args.overrides = parser.parse_known_args()
  strange = [x for x in args.overrides if not x.startswith("--config.")]
  if strange or (args.overrides and getattr(args, "config", None) is None):
    parser.error(f"unexpected arguments: {' '.join(strange or args.overrides)}")
  return args


def main() -> int:
  """Converts a file; returns the exit status."""
  args = _parse()
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

"""The words around a text: the templates, and a prompt as text, for whoever has no tokenizer.

The templates `v0` and `v6` keep the shapes of the paper's prompts of those names (Appendix D,
Table 10) in our own words.
"""

from typing import Any

from openrpt.config.prompt import PromptConfig
from openrpt.data.own_template import own_template
from openrpt.user_code import is_import_path

# name: (before the prefix, after it)
TEMPLATES: dict[str, tuple[str, str]] = {
    "minimal": ("", ""),
    "v0": (
        "Finish the text below by one token. Reason step by step about what the most probable"
        " next token is, and give it inside \\boxed{}. It may begin with a space; do not wrap it"
        " in \\text{}.\n\n### Context\n",
        "",
    ),
    "v6": (
        "The text between the fences breaks off. List several tokens that could come next, weigh"
        " them, and choose the most probable one. Give it inside \\boxed{}. It may begin with a"
        " space; do not wrap it in \\text{}.\n\n```\n",
        "\n```\n\nNow predict the token that comes next.",
    ),
    "chat": ("Think, then give the next token of this text in \\boxed{}.\n\n", ""),
    "question": ("", "\n\n{instruction}"),
}
EXAMPLE_END = "\n\n"
"""What stands between examples where there are no tokens, and so no end of turn."""


def prompt_text(config: PromptConfig, text: str) -> str:
    """Returns a prompt as one text, up to the thought, for whoever has no tokenizer: examples,
    template and text as in `build_layout`, without a chat template; an example ends with an empty
    line.

    >>> prompt_text(PromptConfig(), "3 * 12 =")
    '3 * 12 =<think>'
    """
    before, after = template_of(config)
    opening = f"{after}\n{config.thought_start}" if after else config.thought_start
    close = config.thought_end + config.answer_start
    shown = [
        f"{before}{one.text}{opening}{one.thought}{close}{one.prediction}{config.answer_end}"
        for one in config.examples
    ]
    return EXAMPLE_END.join([*shown, f"{before}{text}{opening}"])


def message_text(config: PromptConfig, text: str) -> str:
    """Returns a prompt as the message of a chat, for whoever has no tokenizer: the template around
    the text, without examples and without the thought's opening.

    >>> message_text(PromptConfig(template="chat"), "3 * 12 =").partition(".")[0]
    'Think, then give the next token of this text in \\\\boxed{}'
    """
    before, after = template_of(config)
    return f"{before}{text}{after}"


def template_of(config: PromptConfig) -> tuple[str, str]:
    """Returns the words before the text and those behind it. Raises UserError for a template of the
    user's own that can't be had, or is no pair of texts."""
    if config.template == "question" and not config.instruction:
        return "", ""  # no empty lines for an instruction that is not there
    is_own = is_import_path(config.template)
    before, after = own_template(config.template) if is_own else TEMPLATES[config.template]
    asked = ("{instruction}", config.instruction)
    return before.replace(*asked), after.replace(*asked)


def prompt_settings(config: PromptConfig) -> dict[str, Any]:
    """Returns all that a prompt depends on: the section's keys and, of a template of the user's
    own, its words, which may change while their path stays. Raises UserError as `template_of`."""
    words = {"words": list(template_of(config))} if is_import_path(config.template) else {}
    return config.model_dump(mode="json") | words

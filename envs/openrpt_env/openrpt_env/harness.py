"""One question, one answer, in the process of the rollout.

verifiers' own chat program (`null`) starts a process for each rollout and fetches its packages by
`uv`; a step of RPT is thousands of single answers.
"""

import verifiers.v1 as vf
from openai import AsyncOpenAI, OpenAIError
from verifiers.v1.clients import ModelContext
from verifiers.v1.runtimes import ProgramResult, Runtime


class OpenRPTHarnessConfig(vf.HarnessConfig):
    """The harness has no settings of its own."""


class OpenRPTHarness(vf.Harness[OpenRPTHarnessConfig]):
    """Asks for the task's prompt as one chat completion."""

    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: ModelContext,
        trace: vf.Trace,
        runtime: Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
        tool_interception_url: str | None = None,
    ) -> ProgramResult:
        """Sends the prompt to the endpoint, which records the answer in the trace."""
        _, prompt = self.resolve_text_prompt(data)
        messages = [{"role": "user", "content": prompt}]
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=0) as client:
            try:
                await client.chat.completions.create(model=ctx.model, messages=messages)
            except OpenAIError as error:
                return ProgramResult(exit_code=1, stdout="", stderr=str(error))
        return ProgramResult(exit_code=0, stdout="", stderr="")

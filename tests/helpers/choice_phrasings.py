"""How answers to multiple choices are phrased, and which letter of ten options each one states."""

OUT = "outside"
TEN = [f"opt{n}" for n in range(10)]

_B = r"""
B
B.
(B)
[B]
**B**
"B"
$B$
\(B\)
b.
B. opt1
B) opt1
B: opt1
(B) opt1
**B. opt1**
B. Because it is so.
(B) because it is so.
The answer is B
The answer is B.
The answer is B!
The answer is b.
The answer is (b).
The answer is (B).
The answer is [B].
The answer is **B**.
The answer is **(B)**.
The answer is **B. opt1**.
The answer is $B$.
The answer is $\text{B}$.
The answer is $\mathbf{B}$.
The answer is $\boldsymbol{B}$.
The answer is \(B\).
The answer is \textbf{B}.
The answer is "B".
The answer is 'B'.
The answer is “B”.
The answer is `B`.
The answer is: B
The answer is: **B**
The answer is option B.
The answer is Option (B).
The answer is choice B.
The answer is letter B.
The answer is the option B.
The answer is B, opt1.
The answer is B: opt1.
The answer is B) opt1.
The answer is (B) opt1.
The answer is B because A is too small.
The answer is B, because A is too small.
The answer is B, as opt0 is too small.
The answer is B since the rest are wrong.
The answer is B, not A.
The answer is B and not A.
The answer is B rather than A.
The answer is B - opt1.
The answer is B — opt1.
The answer is therefore B.
The answer is thus (B).
The answer is clearly B.
The answer must be B.
The answer should be B.
The answer would be B.
The answer has to be B.
The answer here is B.
The answer, therefore, is B.
The answer is not A but B.
The answer is not A, but B.
The answer isn't A, it's B.
The answer is opt1.
The answer is opt1
Answer: opt1
The correct answer is B.
The right answer is B.
The best answer is (B).
The final answer is B.
My answer is B.
My final answer: B
So my answer is B.
So the answer is B.
Thus, the answer is B.
Therefore the correct answer is option B.
Hence the answer must be (B).
The correct option is B.
The correct choice is (B).
The correct letter is B.
The best choice is B.
The right option is **B**.
The correct answer choice is B.
The correct option: B
Correct answer: B
Answer: B
Answer:B
Answer - B
Answer = B
Answer: (B)
Answer: **B**
Answer: b
Answer: B. opt1
Answer: B) opt1
Answer: (B) opt1
Answer: option B
Answer: Option B
Answer B
ANSWER: B
ANSWER IS B
answer: B
Final Answer: B
FINAL ANSWER: (B)
**Answer:** B
**Answer**: B
**Answer: B**
**Answer: (B)**
**Answer:** **B**
**Final Answer:** B
**Final answer**: (B)
### Answer: B
## Final answer\nB
Answer:\nB
The answer is:\n\n(B)
The answer is:\n**B**
B is correct.
B is the correct answer.
B is the right answer.
B is the answer.
B is the best option.
B is right.
B is clearly correct.
B must be correct.
B would be the correct choice.
(B) is correct.
**B** is correct.
"B" is the right choice.
Option B is correct.
Option B is the correct answer.
Option (B) is the right one.
Choice B is correct.
So B is correct.
So option B is the answer.
It's B.
It is B.
It is (B).
It must be B.
It's option B.
It's **B**.
So it's B.
So B.
So, B.
Thus B.
Therefore, B.
Therefore (B).
Hence, option B.
I choose B.
I would choose B.
I'd go with B.
I pick option B.
I'll go with (B).
I think B.
I think it's B.
I think the answer is B.
I believe the answer is (B).
We select B.
This leaves B.
That leaves us with option B.
A is too small, C is too large. The answer is B.
A is wrong. B is correct. C is wrong.
Option A is wrong, so the answer is B.
Not A, since it is small. So B.
Is it A? No. The answer is B.
The answer is A. Wait, no. The answer is B.
Answer: A. Let me check. Answer: B
I first thought the answer is A, but it is B.
If the answer were A, it would float. So the answer is B.
A. opt0 is small\nB. opt1 fits\nC. opt2 is large\nThe answer is B.
The answer is B. Option A is wrong.
The answer is B. A person needs water.
The answer is B. I am sure.
The answer is B, I think.
The answer is B. (A) is too small.
The wrong answer is A. The right one is B.
We weigh them.\n\nB
We weigh them.\n\n(B)
We weigh them.\n\n**B**
We weigh them.\n\nB.
opt1
Opt1.
\boxed{B}
\boxed{ B }
\boxed{(B)}
\boxed{b}
\boxed{B.}
\boxed{B. opt1}
\boxed{B) opt1}
\boxed{B: opt1}
\boxed{(B) opt1}
\boxed{B opt1}
\boxed{opt1}
\boxed{\text{opt1}}
\boxed{\text{B}}
\boxed{\textbf{B}}
\boxed{\mathbf{B}}
\boxed{\mathrm{B}}
\boxed{\text{(B)}}
\boxed{\text{B. opt1}}
\boxed{\textbf{(B)}\ opt1}
\boxed{\textbf{(B)} opt1}
\boxed{\text{(B) opt1}}
\boxed{\mathbf{(B)}}
\boxed{\textbf{B) } 5}
\boxed{Option B}
\boxed{\text{Option B}}
\boxed{option (B)}
\boxed{Answer: B}
\boxed{\text{Answer: B}}
\boxed{The answer is B}
\boxed{**B**}
\boxed{$B$}
\boxed{"B"}
\boxed B
\boxed {B}
\fbox{B}
$\boxed{B}$
$$\boxed{\text{B}}$$
\[\boxed{B}\]
The answer is A, no: \boxed{B}
\boxed{A} No, wait: \boxed{B}
hm, the answer is A </think> The answer is B.
"""

_OTHER = [
    ("The answer is A.", "A"),
    ("The answer is A because it is small.", "A"),
    ("Answer: A", "A"),
    ("A", "A"),
    ("A. opt0", "A"),
    ("A is correct.", "A"),
    ("It's A.", "A"),
    ("The answer is I.", "I"),
    ("Answer: I", "I"),
    ("(I)", "I"),
    ("I is correct.", "I"),
    (r"\boxed{I}", "I"),
    ("My answer: A person needs water, so C.", "C"),
    ("It is not A but C.", "C"),
    ("Not (A) and not (B). So (C).", "C"),
    ("The answer is B. No, C is correct.", "C"),
    ("B is incorrect. C is correct.", "C"),
    ("Answer: J. opt9", "J"),
    ("", None),
    ("A rose is red.", None),
    ("A hard one", None),
    ("I think that it is hard.", None),
    ("I", "I"),
    ("I am not sure.", None),
    ("I don't know the answer.", None),
    ("The answer: I don't know.", None),
    ("Answer: A person needs water.", None),
    ("Answer: I am not sure.", None),
    ("The answer is a person.", None),
    ("The answer is A or B.", None),
    ("The answer is A and B.", None),
    ("The answer is A/B.", None),
    ("The answer is either A or B.", None),
    ("The answer is both (A) and (B).", None),
    ("Answer: A, B", None),
    ("Answer: A or maybe B", None),
    ("The answer is B or C, I am not sure.", None),
    ("The answer is not B.", None),
    ("The answer isn't B.", None),
    ("The answer cannot be B.", None),
    ("The answer is neither A nor B.", None),
    ("B is not correct.", None),
    ("B is incorrect.", None),
    ("Option B is wrong.", None),
    ("Is the answer B?", None),
    ("If the answer is B, then it floats.", None),
    ("The wrong answer is B.", None),
    ("The answer might be B.", None),
    ("A. opt0\nB. opt1\nC. opt2", None),
    ("Let B = 5 and C = 6.", None),
    ("Vitamin C is good.", None),
    ("The answer depends on C++.", None),
    ("So I went home.", None),
    ("So A person needs water.", None),
    ("It is A person.", None),
    (r"\boxed{A} or \boxed{B}", None),
    (r"\boxed{B", None),
    (r"B} and more", None),
    ("hm, the answer is A </think> hm", None),
    ("The answer is Z.", OUT),
    ("The answer is (K).", OUT),
    ("Answer: **Q**", OUT),
    (r"\boxed{K}", OUT),
    (r"\boxed{5}", OUT),
    (r"\boxed{opt}", OUT),
    (r"\boxed{\text{yellow}}", OUT),
    (r"\boxed{A and B}", OUT),
    (r"\boxed{A, B}", OUT),
    (r"\boxed{A person}", OUT),
    (r"\boxed{not B}", OUT),
]

PHRASINGS = [(line.replace(r"\n", "\n"), "B") for line in _B.strip().splitlines()] + _OTHER
